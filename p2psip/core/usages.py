"""What can be begun by a request of a peer."""

from __future__ import annotations

import functools

from p2psip.core.engine import Engine
from p2psip.core.notify import receive_subscribe
from p2psip.core.refer_outside import receive_refer
from p2psip.core.session_arrival import receive_invite


def install(engine: Engine) -> None:
    """Let the engine take the requests that begin something."""
    engine.acceptors["INVITE"] = functools.partial(receive_invite, engine)
    engine.acceptors["SUBSCRIBE"] = functools.partial(receive_subscribe, engine)
    engine.acceptors["REFER"] = functools.partial(receive_refer, engine)
