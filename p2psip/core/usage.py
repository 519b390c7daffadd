"""What lives in a dialog, as the engine sees it: sessions, subscriptions, transfers (RFC 5057).

The engine knows no dialogs. Each kind of usage registers a finder in ``engine.usages``; a new request, and an ACK
that belongs to no transaction, is taken to the first usage that is found for it. What nobody claims is outside of
any dialog.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from p2psip.errors import RealTimeException
from p2psip.message import Request, Response

if TYPE_CHECKING:
    from p2psip.core.directory import EndpointRecord
    from p2psip.core.request import ClientRequest
    from p2psip.core.transaction import ServerTransaction


class Usage(Protocol):
    """One usage. It is called on the engine's thread and answers through the engine's methods."""

    def received(self, now: float, transaction: ServerTransaction) -> None:
        """A request in its dialog, to be answered by ``engine.respond``."""

    def acknowledged(self, now: float, flow: Any, ack: Request) -> None:
        """The ACK to a 2xx; again for each 2xx that was sent again."""

    def cancelled(self, now: float, transaction: ServerTransaction) -> None:
        """The peer has taken back its INVITE; 487 was sent."""

    def transaction_failed(self, now: float, transaction: ServerTransaction, error: RealTimeException | None) -> None:
        """A request could not be answered: its flow was lost (None: closed by the peer), it was answered 500
        because time ran out, or the final answer to an INVITE was never acknowledged."""

    def responded(self, now: float, client_request: ClientRequest, response: Response) -> None:
        """A response to a request of the usage. To an INVITE each 2xx comes here, repeated ones as well, and is to
        be acknowledged with ``engine.send_ack``."""

    def failed(self, now: float, client_request: ClientRequest, error: RealTimeException) -> None:
        """A request of the usage got no final response."""


class UsageFinder(Protocol):
    """Finds the usage that a request belongs to."""

    def find(self, request: Request, flow: Any) -> Usage | None: ...


Acceptor = Callable[[float, "ServerTransaction", "EndpointRecord"], object]
"""Takes a request that is the first of a dialog: the time, its transaction, whose it is."""


def never_busy(flow: Any) -> bool:
    """What comes over that flow always finds somebody to handle it."""
    return False


class ClientUsage:
    """Base of a usage that has only a request of ours: what it is told of the peer's requests does not occur."""

    __slots__ = ()

    def received(self, now: float, transaction: ServerTransaction) -> None: ...

    def acknowledged(self, now: float, flow: Any, ack: Request) -> None: ...

    def cancelled(self, now: float, transaction: ServerTransaction) -> None: ...

    def transaction_failed(
        self, now: float, transaction: ServerTransaction, error: RealTimeException | None
    ) -> None: ...

    def responded(self, now: float, client_request: ClientRequest, response: Response) -> None: ...

    def failed(self, now: float, client_request: ClientRequest, error: RealTimeException) -> None: ...
