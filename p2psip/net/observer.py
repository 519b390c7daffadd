"""Who uses a network, and what it is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from p2psip.errors import RealTimeException, TlsFailureException
from p2psip.message import Malformed, Request, Response

if TYPE_CHECKING:
    from p2psip.net.connection import Connection
    from p2psip.net.pool import Pool


class NetworkObserver(Protocol):
    """Who uses a network. Everything is called on the loop's thread."""

    @property
    def authorization_wanted(self) -> bool:
        """Whether connections are to be authorized before messages flow."""

    def authorize_connection(self, connection: Connection) -> None:
        """Call ``connection.authorize`` some time, on the loop's thread."""

    def connection_ready(self, connection: Connection) -> None:
        """Messages may flow; comes before any. Sets ``sent_by``."""

    def messages_received(self, connection: Connection, messages: list[Request | Response | Malformed]) -> None:
        """In the order of the stream."""

    def answered(self, connection: Connection, data: bytes) -> None:
        """What could not be cut into messages was answered, without a word of the observer."""

    def connection_closed(self, connection: Connection, error: RealTimeException | None) -> None:
        """No more messages. For connections that were ready; None after an orderly end."""

    def connection_pool_added(self, pool: Pool) -> None: ...

    def connection_pool_removed(self, pool: Pool) -> None: ...

    def handshake_failed(self, connection: Connection, error: TlsFailureException) -> None:
        """A peer that connected was refused, or refused us."""

    def listening_aborted(self, error: RealTimeException) -> None:
        """Nothing is listened on any more, though nobody asked for that."""
