"""For all tests: on a busy machine an example may take as long as it likes, and each test may log as if it were the first."""

import pytest
from hypothesis import settings

from p2psip import logs

settings.register_profile("p2psip", deadline=None)
settings.load_profile("p2psip")


@pytest.fixture(autouse=True)
def nothing_is_left_out_of_the_log() -> None:
    """What tests before have logged within the same second does not count."""
    for log in logs._logs:
        log._kinds.clear()
