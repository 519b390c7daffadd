"""What the engine asks of the world, in order.

The engine does nothing itself: it appends effects to ``engine.effects``, and whoever drives it takes them with
``engine.take_effects()`` and carries them out. One class for each kind, so that they are told apart by type.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from p2psip.message import Request, Response

if TYPE_CHECKING:
    from p2psip.core.directory import EndpointRecord
    from p2psip.core.late_response import LateResponse, WayBack
    from p2psip.core.request import Acknowledgement, ClientRequest
    from p2psip.core.transaction import ServerTransaction


class Send:
    """Write the octets of one message on a flow."""

    __slots__ = ("data", "flow")

    def __init__(self, flow: Any, data: bytes) -> None:
        self.flow = flow
        self.data = data


class SendBack:
    """Find or make a flow to that place, then call ``late.opened`` or ``late.failed`` with the time."""

    __slots__ = ("late", "way")

    def __init__(self, late: LateResponse, way: WayBack) -> None:
        self.late = late
        self.way = way


class OpenFlow:
    """Find or make a flow to the target, then call ``engine.flow_opened`` or ``engine.flow_failed``.

    Attributes:
        flow: To be used instead while it is connected; or None.
        target: An exception when there is no place to go: then the request fails with it, unless there is the flow.
    """

    __slots__ = ("client_request", "flow", "target")

    def __init__(self, client_request: ClientRequest | Acknowledgement, target: Any, flow: Any) -> None:
        self.client_request = client_request
        self.target = target
        self.flow = flow


class Deliver:
    """A request outside of any dialog has passed the UAS core and is the endpoint's to answer."""

    __slots__ = ("record", "request", "transaction")

    def __init__(self, record: EndpointRecord, transaction: ServerTransaction, request: Request) -> None:
        self.record = record
        self.transaction = transaction
        self.request = request


class Arrived:
    """A usage has begun by a request of a peer: a session, a subscription or a transfer is offered to the endpoint.

    Whoever carries this out sets ``usage.user``.
    """

    __slots__ = ("record", "usage")

    def __init__(self, record: EndpointRecord, usage: Any) -> None:
        self.record = record
        self.usage = usage


class Tell:
    """Something has happened to a usage; for ``usage.user``, looked up when this is carried out."""

    __slots__ = ("event", "usage")

    def __init__(self, usage: Any, event: Any) -> None:
        self.usage = usage
        self.event = event


class Complete:
    """The last word about a request of ours: its final response, or the error in its place.

    An operation of a usage ends with a response too, or with the request that it was waiting for: ACK or PRACK; with
    neither where there is nothing to say.
    """

    __slots__ = ("error", "response", "user")

    def __init__(self, user: Any, response: Response | Request | None, error: Exception | None) -> None:
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


Effect = Send | SendBack | OpenFlow | Deliver | Arrived | Tell | Complete | Provisional | Expired
