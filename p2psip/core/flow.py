"""What the core reads of a connection."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol


class Flow(Protocol):
    """A connection, known by its identity."""

    unanswered: int
    """Requests that we sent on it and that have no final answer yet; written by the engine."""

    messages_received: int
    """What the peer has said on it."""

    is_incoming: bool
    is_connected: bool

    @property
    def transport(self) -> str: ...
    @property
    def reliable(self) -> bool: ...
    @property
    def sent_by(self) -> str: ...

    via_parameters: str
    """What Via says besides: ``;alias`` where the peer may send requests back (RFC 5923), or nothing."""

    @property
    def local(self) -> tuple[str, int]: ...
    @property
    def remote(self) -> tuple[str, int]: ...
    @property
    def is_authenticated(self) -> bool:
        """The peer has shown a certificate, which was verified."""

    def is_unsent(self, branch: str) -> bool:
        """It was lost, and nothing of the request with that branch had left."""

    def doubt(self, since: float) -> None:
        """A request that was sent then has had no answer in all its time. Where nothing else was heard either, the flow
        may lead nowhere."""

    def covers(self, host: str) -> bool:
        """The peer has proved that it is this host: by its address, or by its certificate."""

    def certifies(self, host: str) -> bool:
        """The peer's verified certificate carries this very host (RFC 5922 7.2); where it connects from is no proof."""

    def certified_as(self, domains: Iterable[str]) -> str | None:
        """The one of these domains that the peer's verified certificate carries, ``.suffix`` for names that end so; or
        None."""
