"""How many of a thing the tests marked ``long`` do: P2PSIP_SCALE 1 is the whole campaign, 0.01 what every run does."""

import os

SCALE = float(os.environ.get("P2PSIP_SCALE") or 0.01)


def scaled(count: int) -> int:
    """That many of the whole campaign's count, at least one."""
    return max(1, round(count * SCALE))
