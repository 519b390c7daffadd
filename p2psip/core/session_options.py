"""What may be chosen for a session before it begins."""

from __future__ import annotations

import dataclasses

from p2psip.enums import ExtensionFeatureSupport


@dataclasses.dataclass(slots=True)
class SessionOptions:
    """To be left alone once the session has begun.

    Attributes:
        reliable: Reliable provisional responses (RFC 3262).
        is_timer_supported: Session timers (RFC 4028).
        session_interval: Seconds that we ask for between refreshes; 0 asks for none.
        minimum_interval: Seconds below which the peer's wish is refused (422).
        local_from: The value of From up to its tag; None takes the endpoint's.
        maximum_redirects: How many targets of 3xx answers are tried, all together.
        ring_limit: Seconds from the first provisional response to the final one; None takes the settings'.
    """

    reliable: ExtensionFeatureSupport = ExtensionFeatureSupport.SUPPORTED
    is_timer_supported: bool = True
    session_interval: int = 1800
    minimum_interval: int = 90
    local_from: str | None = None
    maximum_redirects: int = 5
    ring_limit: float | None = None
