"""A response whose request's connection is gone: where else it may go (RFC 3261 18.2.2, RFC 3263 5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from p2psip.core.effects import Send, SendBack
from p2psip.core.tables import Input

if TYPE_CHECKING:
    from p2psip.core.flow import Flow
    from p2psip.core.transaction import ServerTransaction
    from p2psip.errors import RealTimeException
    from p2psip.message import Request

DEFAULT_PORTS = {"TCP": 5060, "TLS": 5061}


class WayBack(NamedTuple):
    """A place that the sender of a request may be reached at.

    Attributes:
        transport: ``"TCP"`` or ``"TLS"``.
        host: A name, or an address.
        port: None where Via has none: the DNS may know (SRV), else it is the transport's own.
        identity: The name that the certificate there has to bear; None on TCP.
    """

    transport: str
    host: str
    port: int | None
    identity: str | None


def ways_back(request: Request, flow: Flow) -> list[WayBack]:
    """Where to, when the flow that the request came over is gone.

    First the address that it came from, at the port of Via's sent-by, because its own port was that connection's; then
    sent-by itself. (``rport`` is the port of a datagram's socket, which has no meaning here: RFC 3581 4.) What came over
    TLS goes back over TLS, to nobody else than who sent-by says that it is.
    """
    via = request.top_via
    transport = "TLS" if "TLS" in (flow.transport, via.transport.upper()) else "TCP"
    host = via.host.strip("[]").lower()
    identity = host if transport == "TLS" else None
    source = WayBack(transport, flow.remote[0], via.port or DEFAULT_PORTS[transport], identity)
    named = WayBack(transport, host, via.port, identity)
    return [source] if host == flow.remote[0] else [source, named]


class LateResponse:
    """It is on its way to one place after the other, until there is a flow.

    A failure is reported to the transaction as a transport error (RFC 3261 17.2.4).
    """

    __slots__ = ("_data", "_left", "_transaction")

    def __init__(self, transaction: ServerTransaction, data: bytes) -> None:
        self._transaction = transaction
        self._data = data
        self._left = ways_back(transaction.request, transaction.flow)
        self._go_on()

    def _go_on(self) -> None:
        self._transaction.context.effects.append(SendBack(self, self._left.pop(0)))

    def opened(self, now: float, flow: Flow) -> None:
        """There is a flow: later responses take it too."""
        context = self._transaction.context
        context.now = now
        self._transaction.way = flow
        context.effects.append(Send(flow, self._data))

    def failed(self, now: float, error: RealTimeException) -> None:
        """There is none to this place."""
        self._transaction.context.now = now
        if self._left:
            self._go_on()
        else:
            self._transaction.take(Input.TRANSPORT_ERROR, error)
