"""The stream under a connection: bytes in, bytes out, and an orderly end, the same for TCP and TLS."""

from __future__ import annotations

import selectors
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from p2psip.config import ManagerSettings
from p2psip.errors import ConnectionFailureException, RealTimeException, TlsFailureException, limited, without_frames
from p2psip.logs import Log
from p2psip.net.counts import Counts
from p2psip.net.deadlines import NEVER, Deadlines
from p2psip.net.limits import Share
from p2psip.net.loop import Loop
from p2psip.net.sockets import StreamSocket, discard, peer_name

if TYPE_CHECKING:
    from p2psip.net.tls import TlsContexts, TlsInfo

_log = Log(__name__)

READ_SIZE = 16384
"""Bytes: what one TLS record holds at most."""
BUSY = 4096
"""Bytes in one read which show that much is in flight: then asking the system once more pays."""
FLUSH_AT = 16384
"""Bytes queued that are written at once rather than at the end of the turn."""
FLUSH_LIMIT = 5.0
LINGER_LIMIT = 1.0
"""Seconds that a closing connection gets to send what is queued, and then to hear the peer close."""
LAST_READS = 64
"""Reads after a write that failed: what the peer has said before is there now or never."""
LAST_WORD = 0.2
"""Seconds that a peer which refuses us gets to say why."""

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

# What a channel is about, in order.
HANDSHAKE = 0
AUTHORIZATION = 1
OPEN = 2
DEAF = 3  # nothing more is read, but what was read is still answered
FLUSHING = 4
FINISHING = 5
LINGERING = 6
CLOSED = 7


class ChannelOwner(Protocol):
    """What a channel needs of the network that it belongs to. ``over`` and ``gone`` come at the end of a turn."""

    loop: Loop
    settings: ManagerSettings
    deadlines: Deadlines
    counts: Counts

    def handshake_over(self, channel: Any) -> None:
        """The peer is verified: open it, have it authorized, or close it."""

    def channel_over(self, channel: Any, error: RealTimeException | None) -> None:
        """No more messages."""

    def channel_gone(self, channel: Any) -> None:
        """The descriptor is closed."""


class Channel:
    """One socket with its queue. Subclasses say what the bytes mean.

    Nothing here calls the owner's ``over`` from within ``send``, ``close`` or ``abort``: who calls those may be in the
    middle of something.

    Attributes:
        share: How much is read before everything else has its turn: what was made of it is sent before more is read, so
            that the peer works on answers while we work on its further requests.
    """

    __slots__ = (
        "_batch",
        "_dirty",
        "_failed",
        "_handshake_wants",
        "_interest",
        "_limit",
        "_out",
        "_owner",
        "_paused",
        "_peer_ended",
        "_queued",
        "_read_wants",
        "_reads_again",
        "_reported",
        "_socket",
        "_stalled_since",
        "_view",
        "_write_wants",
        "bytes_received",
        "bytes_sent",
        "deadline",
        "host",
        "is_connected",
        "opened_at",
        "phase",
        "remote",
        "share",
        "tls",
        "transport",
    )

    def __init__(
        self, owner: ChannelOwner, sock: StreamSocket, transport: str, remote: tuple[str, int], host: str | None
    ) -> None:
        self._owner = owner
        self._socket = sock
        self.transport = transport
        self.remote = remote
        self.host = host
        self.phase = HANDSHAKE
        self.is_connected = True
        self.tls: TlsInfo | None = None
        self.opened_at = owner.loop.now
        self.bytes_sent = 0
        self.bytes_received = 0
        self.deadline = NEVER
        self.share = Share()
        self._limit = NEVER  # of the phase
        self._out: list[bytes] = []
        self._view: memoryview | None = None  # what a send has begun with; the same bytes must be offered again
        self._batch: list[bytes] = []  # what it was made of
        self._queued = 0
        self._dirty = False
        self._stalled_since: float | None = None
        self._paused: tuple[str, ...] = ()
        self._interest = 0
        self._handshake_wants = self._read_wants = READ
        self._write_wants = WRITE
        self._peer_ended = False
        self._reads_again = False  # at the end of the turn
        self._reported = False
        self._failed: RealTimeException | None = None  # the write; what is done about it comes at the turn's end

    @property
    def peer(self) -> str:
        """The other side, for sentences."""
        return peer_name(self.host, self.remote)

    @property
    def queued(self) -> int:
        """Bytes that wait to be written."""
        return self._queued

    # ------------------------------------------------------------------ the beginning

    def start(self) -> None:
        """Begin the handshake (on TCP it is over at once)."""
        self._set_limit(self._owner.settings.handshake_timeout)
        self._guard(self._shake)

    def _shake(self) -> None:
        wants = self._socket.handshake()
        if wants:
            self._handshake_wants = wants
            self._watch()
            return
        self.tls = self._socket.info
        self.phase = AUTHORIZATION
        self._limit = NEVER
        self._watch()
        self._owner.handshake_over(self)

    def _opened(self) -> None:
        """Reading begins; the first bytes may have come together with the end of the handshake."""
        self.phase = OPEN
        self._limit = NEVER
        self._watch()
        self._owner.loop.at_turn_end(self._guard, self._read)

    def verify_again(self, tls: TlsContexts) -> None:
        """The rules have changed: a peer that is verified and should not be connected any more is let go."""
        if self.tls is not None and self.phase < FLUSHING:
            try:
                self._socket.verify_again(tls.verifier)
            except TlsFailureException as error:
                self.close(error)

    # ------------------------------------------------------------------ writing

    def _put(self, data: bytes) -> None:
        """Queue it; it is written together with all that comes in the same turn."""
        self._out.append(data)
        self._queued += len(data)
        if not self._dirty:
            self._dirty = True
            self._owner.loop.at_turn_end(self._guard, self._flush)
        elif self._queued >= FLUSH_AT and self._stalled_since is None:
            self._flush()

    def _flush(self) -> None:
        self._dirty = False
        assert self._owner.loop.in_loop()  # ssl's objects crash when two threads use them
        if not AUTHORIZATION < self.phase < FINISHING or self._failed is not None:
            return
        send, view, moved = self._socket.send, self._view, False
        try:
            while True:
                if view is None:
                    out = self._out
                    if not out:
                        break
                    view = memoryview(out[0] if len(out) == 1 else b"".join(out))
                    self._batch, self._out = out, []
                sent = send(view)
                if not sent:
                    break
                moved = True
                self._queued -= sent
                self.bytes_sent += sent
                self._owner.counts.bytes_sent += sent
                view = view[sent:] if sent < len(view) else None
        except RealTimeException as error:
            self._view = view
            self._failed = error
            self._owner.loop.at_turn_end(self._guard, self._write_failed, error)
            return
        self._view = view
        if view is None:
            if self._stalled_since is not None:
                self._stalled_since = None
                self._watch()
            if self.phase == FLUSHING:
                self._finish()
        else:
            self._write_wants = self._socket.wants
            if moved or self._stalled_since is None:
                self._stalled_since = self._owner.loop.now
                self._stalled()
            self._watch()
        self._queue_changed()

    def _unsent(self) -> list[bytes]:
        """What is queued and of which nothing has left."""
        unsent: list[bytes] = []
        if self._view is not None:
            begun = sum(map(len, self._batch)) - len(self._view)
            for data in self._batch:
                if begun <= 0:
                    unsent.append(data)
                begun -= len(data)
        return unsent + self._out

    def _write_failed(self, error: RealTimeException) -> None:
        """What the peer said before it closed tells more than our failed write: an answer, or why it refuses us."""
        if self.phase == OPEN:
            try:
                for _ in range(LAST_READS):
                    data = self._socket.receive(READ_SIZE)
                    if data is None and isinstance(error, TlsFailureException):
                        self._set_limit(LAST_WORD)  # the alert may still be on its way
                        return
                    if not data:
                        break
                    self._received(data)
                    if self.phase != OPEN:
                        return
            except TlsFailureException as refusal:
                error = refusal
            except RealTimeException:
                pass
        self._lost(error)

    def _stalled(self) -> None:
        """The system takes no more for now."""
        self._owner.deadlines.arm(self, self._owner.loop.now + self._owner.settings.send_timeout)

    def _queue_changed(self) -> None:
        """Something was written, or could not be."""

    # ------------------------------------------------------------------ reading

    def pause_reading(self, why: str) -> None:
        """Read no more until each reason that was given is taken back."""
        if why not in self._paused:
            self._paused += (why,)
            self._watch()

    def resume_reading(self, why: str) -> None:
        """Take one reason back."""
        if why in self._paused:
            self._paused = tuple(reason for reason in self._paused if reason != why)
            if not self._paused and self.phase == OPEN:
                self._resumed()
                self._watch()
                # What TLS has decrypted already wakes no selector.
                self._owner.loop.at_turn_end(self._guard, self._read)

    def _resumed(self) -> None:
        """Reading goes on."""

    def _read(self) -> None:
        sock, left = self._socket, self.share.take(self._owner.loop.turn)
        while self.phase == OPEN and not self._paused:
            data = sock.receive(left)
            if data is None:
                if sock.wants != self._read_wants:
                    self._read_wants = sock.wants
                    self._watch()
                return
            if not data:
                self._peer_ended = True
                self._input_ended()
                return
            self.bytes_received += len(data)
            self._owner.counts.bytes_received += len(data)
            self._received(data)
            left -= len(data)
            if left <= 0:
                # What TLS has decrypted wakes no selector; what the system has does.
                if sock.pending() and not self._reads_again:
                    self._reads_again = True
                    self._owner.loop.at_turn_end(self._guard, self._read_again)
                return
            if len(data) < BUSY and not sock.pending():
                return

    def _read_again(self) -> None:
        self._reads_again = False
        self._read()

    def _received(self, data: bytes) -> None:
        raise NotImplementedError

    def _input_ended(self) -> None:
        raise NotImplementedError

    # ------------------------------------------------------------------ the end

    def close(self, error: RealTimeException | None = None, grace: float = FLUSH_LIMIT) -> None:
        """End it in order: what is queued is sent, the peer is told and gets a second to close as well.

        ``error`` is what requests without an answer fail with. A closed connection stays closed.
        """
        if self.phase >= FLUSHING:
            if self.phase != CLOSED and self._owner.loop.now + grace < self._limit:
                self._set_limit(grace)
        elif self.phase == HANDSHAKE:
            self.abort(error)
        else:
            self._report(error)
            self.phase = FLUSHING
            self._set_limit(grace)
            self._watch()
            self._owner.loop.at_turn_end(self._guard, self._flush)

    def abort(self, error: RealTimeException | None = None) -> None:
        """End it at once; what is queued is lost."""
        self._report(error)
        self._destroy()

    def _report(self, error: RealTimeException | None) -> None:
        if not self._reported:
            self._reported = True
            self.is_connected = False
            if error is not None:
                without_frames(error)
            self._owner.loop.at_turn_end(self._owner.channel_over, self, error)

    def _lost(self, error: RealTimeException) -> None:
        """The socket has failed."""
        refused = self.phase == HANDSHAKE and isinstance(error, TlsFailureException)
        if not refused:
            self.abort(error)
            return
        self._report(error)
        # The alert that says why must reach the peer: a socket closed with input unread would be reset.
        self.phase = FINISHING
        self._set_limit(LINGER_LIMIT)
        self._watch()
        self._owner.loop.at_turn_end(self._guard, self._finish)

    def _finish(self) -> None:
        if self.phase > FINISHING:
            return
        self.phase = FINISHING
        if self._socket.finish():
            if self._peer_ended:
                self._destroy()
                return
            self.phase = LINGERING
            self._set_limit(LINGER_LIMIT)
        self._watch()

    def _linger(self) -> None:
        if discard(self._socket.fileno()):
            self._destroy()

    def _destroy(self) -> None:
        if self.phase == CLOSED:
            return
        self.phase = CLOSED
        self._watch()
        self._socket.close()
        self._out.clear()
        self._batch.clear()
        self._view = None
        self._queued = 0
        self._owner.deadlines.disarm(self)
        self._owner.loop.at_turn_end(self._owner.channel_gone, self)

    def close_descriptor(self) -> None:
        """Give the descriptor back and nothing else: the loop has ended, or lives in the parent process."""
        self.phase = CLOSED
        self.is_connected = False
        self._socket.close()

    # ------------------------------------------------------------------ time

    def _set_limit(self, seconds: float) -> None:
        self._limit = self._owner.loop.now + seconds
        self._owner.deadlines.arm(self, self._limit)

    def expire(self, now: float) -> None:
        """The deadline that was armed is there."""
        if self.phase < CLOSED:
            self._guard(self._check, now)

    def _check(self, now: float) -> None:
        if self._failed is not None:
            self.abort(self._failed)
        elif now < self._limit:
            if self._limit != NEVER:
                self._owner.deadlines.arm(self, self._limit)
        elif self.phase == HANDSHAKE:
            limit = self._owner.settings.handshake_timeout
            sentence = f"{self.peer} did not finish the TLS handshake within {limit:g} s: is it a TLS port?"
            self.abort(limited("handshake_timeout", ConnectionFailureException(sentence)))
        elif self.phase >= FLUSHING:
            self._destroy()

    # ------------------------------------------------------------------ what the loop calls

    def _watch(self) -> None:
        """Ask the selector for what the phase needs."""
        phase = self.phase
        if phase == OPEN:
            events = 0 if self._paused else self._read_wants
            if self._stalled_since is not None:
                events |= self._write_wants
        elif phase == HANDSHAKE:
            events = self._handshake_wants
        elif phase == LINGERING:
            events = READ
        elif phase == FINISHING:
            events = self._socket.wants
        elif phase in (DEAF, FLUSHING) and self._stalled_since is not None:
            events = self._write_wants
        else:
            events = 0
        if events == self._interest:
            return
        loop = self._owner.loop
        if not events:
            loop.unregister(self._socket)
        elif not self._interest:
            loop.register(self._socket, events, self._ready)
        else:
            loop.modify(self._socket, events, self._ready)
        self._interest = events

    def _ready(self, events: int) -> None:
        phase = self.phase
        if phase == OPEN:
            if self._stalled_since is not None and events & self._write_wants:
                self._guard(self._flush)
            if events & self._read_wants:
                self._guard(self._read)
        elif phase == HANDSHAKE:
            self._guard(self._shake)
        elif phase == LINGERING:
            self._guard(self._linger)
        elif phase == FINISHING:
            self._guard(self._finish)
        elif phase < CLOSED:
            self._guard(self._flush)

    def _guard(self, step: Callable[..., object], *args: object) -> None:
        """Whatever happens in it ends this connection and no other."""
        assert self._owner.loop.in_loop()
        try:
            step(*args)
        except RealTimeException as error:
            self._lost(error)
        except Exception as error:
            _log.exception("The connection with %s is closed because of an error of this library.", self.peer)
            failure = ConnectionFailureException(
                f"The connection with {self.peer} was closed because of an error of this library: {error!r}."
            )
            failure.__cause__ = error
            self.abort(failure)
