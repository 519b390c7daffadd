"""What the core reads of a connection."""

from __future__ import annotations

from typing import Protocol


class Flow(Protocol):
    """A connection, known by its identity."""

    unanswered: int
    """Requests that we sent on it and that have no final answer yet; written by the engine."""

    is_incoming: bool
    is_connected: bool

    @property
    def transport(self) -> str: ...
    @property
    def reliable(self) -> bool: ...
    @property
    def sent_by(self) -> str: ...
    @property
    def local(self) -> tuple[str, int]: ...
    @property
    def remote(self) -> tuple[str, int]: ...
    @property
    def is_authenticated(self) -> bool:
        """The peer has shown a certificate, which was verified."""

    def covers(self, host: str) -> bool:
        """The peer has proved that it is this host: by its address, or by its certificate."""
