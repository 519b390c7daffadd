"""For all tests: on a busy machine an example may take as long as it likes, and each test may log as if it were the first."""

import signal

import pytest
from hypothesis import settings

from p2psip import logs

settings.register_profile("p2psip", deadline=None)
settings.load_profile("p2psip")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Who was started in the background does not hear of Ctrl-C, and neither do the processes that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def nothing_is_left_out_of_the_log() -> None:
    """What tests before have logged within the same second does not count."""
    for log in logs._logs:
        log._kinds.clear()
