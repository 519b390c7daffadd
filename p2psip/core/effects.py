"""What the engine asks of the world, in order.

The engine does nothing itself: it appends effects to ``engine.effects``, and whoever drives it takes them with
``engine.take_effects()`` and carries them out. One class for each kind, so that they are told apart by type.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from p2psip.errors import RealTimeException
from p2psip.message import Request, Response

if TYPE_CHECKING:
    from p2psip.core.directory import EndpointRecord
    from p2psip.core.request import ClientRequest
    from p2psip.core.transaction import ServerTransaction


class Send:
    """Write the octets of one message on a flow."""

    __slots__ = ("data", "flow")

    def __init__(self, flow: Any, data: bytes) -> None:
        self.flow = flow
        self.data = data


class OpenFlow:
    """Find or make a flow to the target, then call ``engine.flow_opened`` or ``engine.flow_failed``."""

    __slots__ = ("client_request", "target")

    def __init__(self, client_request: ClientRequest, target: Any) -> None:
        self.client_request = client_request
        self.target = target


class Deliver:
    """A request outside of any dialog has passed the UAS core and is the endpoint's to answer."""

    __slots__ = ("record", "request", "transaction")

    def __init__(self, record: EndpointRecord, transaction: ServerTransaction, request: Request) -> None:
        self.record = record
        self.transaction = transaction
        self.request = request


class Complete:
    """The last word about a request of ours: its final response, or the error in its place."""

    __slots__ = ("error", "response", "user")

    def __init__(self, user: Any, response: Response | None, error: RealTimeException | None) -> None:
        self.user = user
        self.response = response
        self.error = error


class Provisional:
    """A provisional response to a request of ours."""

    __slots__ = ("response", "user")

    def __init__(self, user: Any, response: Response) -> None:
        self.user = user
        self.response = response


class Expired:
    """Nobody answered a delivered request within the handler limit; 500 was sent."""

    __slots__ = ("transaction",)

    def __init__(self, transaction: ServerTransaction) -> None:
        self.transaction = transaction


Effect = Send | OpenFlow | Deliver | Complete | Provisional | Expired
