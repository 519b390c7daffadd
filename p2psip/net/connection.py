"""One connection: messages in, messages out, keep-alive and time-outs (RFC 3261 18, RFC 5626 4.4.1)."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol

from p2psip.errors import (
    ConnectionFailureException,
    MessageParsingException,
    OperationFailureException,
    OperationFailureReason,
    RealTimeException,
    limited,
)
from p2psip.message import Limits, Malformed, Ping, Pong, Request, Response, StreamFramer
from p2psip.net.channel import AUTHORIZATION, DEAF, OPEN, Channel, ChannelOwner
from p2psip.net.deadlines import NEVER
from p2psip.net.limits import Quota
from p2psip.net.sockets import StreamSocket, host_and_port

if TYPE_CHECKING:
    from p2psip.net.pool import Pool

PING = b"\r\n\r\n"
PONG = b"\r\n"
SENDING = "sending"
RATE = "rate"
"""Reasons to read no more."""


class ConnectionOwner(ChannelOwner, Protocol):
    """What a connection needs of its network besides."""

    limits: Limits

    @property
    def listening_port(self) -> int:
        """Where peers connect to; 0 when they cannot."""

    def connection_open(self, connection: Connection) -> None:
        """Messages may flow from now on."""

    def answered(self, connection: Connection, data: bytes) -> None:
        """The connection itself has answered what could not be read."""

    def messages_received(self, connection: Connection, messages: list[Request | Response | Malformed]) -> None:
        """In the order of the stream."""

    def count_buffered(self, change: int) -> None:
        """So many bytes more, or less, are kept on a connection."""


class Connection(Channel):
    """One TCP or TLS connection. For the loop's thread, but for reading attributes.

    Attributes:
        id: A number that no other connection of the network bears.
        transport: ``"TCP"`` or ``"TLS"``.
        is_incoming: The peer opened it.
        local, remote: ``(host, port)`` of the two sides; no zones, IPv4 as IPv4.
        host: The host as it was asked for; None on incoming ones.
        is_connected: Messages may flow both ways, or will when it is authorized.
        sent_by, via_parameters: What our Via says on it; see :meth:`be_called`.
        unanswered: Our requests on it without a final answer; its user counts them.
        tls: Who the peer is; None on TCP and before the handshake is over.
        matching_domain_name: The allowed domain that let an incoming peer in, or None.
        pool: Which one it belongs to; None for an incoming one.
        application_context: Whatever the application put there.
        buffered: Bytes that it keeps: queued for sending, and of a message that is still coming in.
        bytes_sent, bytes_received, messages_sent, messages_received: Counters.
        opened_at: Loop time.
    """

    reliable = True

    __slots__ = (
        "__weakref__",
        "_framer",
        "_heard",
        "_is_doubted",
        "_message_since",
        "_owed",
        "_ping_at",
        "_ping_sent",
        "_pings",
        "_proved",
        "_requests",
        "_unsent_branches",
        "application_context",
        "buffered",
        "id",
        "is_incoming",
        "local",
        "matching_domain_name",
        "messages_received",
        "messages_sent",
        "pool",
        "sent_by",
        "unanswered",
        "via_parameters",
    )

    _owner: ConnectionOwner

    def __init__(
        self,
        owner: ConnectionOwner,
        number: int,
        sock: StreamSocket,
        *,
        transport: str,
        local: tuple[str, int],
        remote: tuple[str, int],
        host: str | None = None,
        pool: Pool | None = None,
    ) -> None:
        super().__init__(owner, sock, transport, remote, host)
        self.id = number
        self.is_incoming = pool is None
        self.local = local
        self.pool = pool
        self.be_called(host_and_port(*local))
        self.unanswered = 0
        self.buffered = 0
        self.matching_domain_name: str | None = None
        self.application_context: Any = None
        self.messages_sent = 0
        self.messages_received = 0
        self._framer = StreamFramer(owner.limits)
        self._owed = 0  # requests of the peer without a final answer of ours
        self._proved = not self.is_incoming  # a valid message has come
        self._message_since: float | None = None  # since when one has been coming in
        self._heard = self.opened_at  # or spoken: the last sign of life
        self._is_doubted = False
        self._ping_at = NEVER
        self._ping_sent: float | None = None
        self._pings: Quota | None = None
        self._requests: Quota | None = None
        self._unsent_branches: frozenset[bytes] = frozenset()

    def __repr__(self) -> str:
        arrow = "from" if self.is_incoming else "to"
        return f"<Connection {self.id}, {self.transport} {arrow} {self.peer}>"

    # ------------------------------------------------------------------ the beginning

    def be_called(self, sent_by: str) -> None:
        """What our Via says on it from now on; and whether we listen, so that the peer may use it for its requests, too
        (RFC 5923)."""
        self.sent_by = sent_by
        is_alias = self.pool is not None and self.transport == "TLS" and self._owner.listening_port
        self.via_parameters = ";alias" if is_alias else ""

    def await_authorization(self) -> None:
        """Nothing is read until ``authorize`` is called; without it the answer is no after a while."""
        self._set_limit(self._owner.settings.authorization_timeout)

    def authorize(self, allowed: bool) -> None:
        """Let messages flow, or close it. Only the first decision counts."""
        if self.phase != AUTHORIZATION:
            return
        if allowed:
            self._guard(self.open)
        else:
            self.close(self._denied("the application denied it"))

    def _denied(self, why: str) -> OperationFailureException:
        return OperationFailureException(
            f"The connection with {self.peer} was closed before any message because {why}: "
            "see connection_authorization_requested.",
            OperationFailureReason.CONNECTION_AUTHORIZATION_FAILED,
        )

    def open(self) -> None:
        """Messages flow."""
        self._opened()
        self._heard = self.opened_at = self._owner.loop.now
        interval = self._owner.settings.keep_alive_interval
        if interval is not None and not self.is_incoming:
            self._ping_at = self._heard + interval * random.uniform(0.8, 1.0)
        self._owner.deadlines.arm(self, self._next(self._heard))
        self._owner.connection_open(self)

    @property
    def is_expired(self) -> bool:
        """The peer's certificate has run out meanwhile."""
        return self.tls is not None and self._owner.loop.clock.time() > self.tls.not_after

    @property
    def is_authenticated(self) -> bool:
        """The peer has shown a certificate, which was verified."""
        return self.tls is not None and self.tls.identities is not None

    def covers(self, host: str) -> bool:
        """The peer has proved that it is this host: by its address, or by its certificate."""
        host = host.strip("[]").lower()
        return host == self.remote[0] or self.certifies(host)

    def certifies(self, host: str) -> bool:
        """The peer's verified certificate carries this very host (RFC 5922 7.2)."""
        return self.tls is not None and self.tls.identities is not None and self.tls.identities.covers(host)

    def certified_as(self, domains: Iterable[str]) -> str | None:
        """The one of these domains that the peer's verified certificate carries, or None."""
        return None if self.tls is None else self.tls.matching(domains)

    def doubt(self, since: float) -> None:
        """A request that was sent then has had no answer in all its time."""
        self._is_doubted = self._is_doubted or self._heard <= since

    @property
    def is_present(self) -> bool:
        """Requests can be sent on it, now or when it is no longer busy. Not where the certificate has run out, and not
        where the peer let a request's whole time go by without a word: a NAT may have forgotten the connection, or the
        peer hangs. What it is still to answer may come all the same."""
        return self.phase == OPEN and not self._is_doubted and not self.is_expired

    @property
    def takes_requests(self) -> bool:
        """It does, and is neither above its send mark nor above its limit of unanswered requests."""
        settings = self._owner.settings
        return (
            self._queued <= settings.send_high_mark
            and self.unanswered < settings.maximum_unanswered_per_connection
            and self.is_present
        )

    @property
    def owed(self) -> int:
        """Requests of the peer that have no final answer of ours yet."""
        return self._owed

    def idle(self, now: float) -> float:
        """Seconds since the peer was heard, or since it was opened."""
        return now - self._heard

    @property
    def is_paused(self) -> bool:
        """It is not read."""
        return bool(self._paused)

    # ------------------------------------------------------------------ messages out

    def send(self, data: bytes) -> None:
        """Send one message. One that is not connected drops it: its user has been told, or will be this turn."""
        if OPEN <= self.phase <= DEAF:
            if self._queued > self._owner.settings.maximum_send_queue:
                error = ConnectionFailureException(
                    f"{self.peer} takes what is sent to it too slowly: more than "
                    f"{self._owner.settings.maximum_send_queue} bytes were waiting, so the connection was closed."
                )
                self.abort(limited("maximum_send_queue", error))
                return
            self.messages_sent += 1
            kind = data[:7]
            self._owner.counts.sent[data[8:11] if kind == b"SIP/2.0" else kind] += 1
            if self._owed and data.startswith(b"SIP/2.0 ") and not data.startswith(b"1", 8):
                self._owed -= 1
            self._put(data)

    def is_unsent(self, branch: str) -> bool:
        """The connection was lost, and nothing of the request with that branch had left."""
        return branch.encode() in self._unsent_branches

    def _lost(self, error: RealTimeException) -> None:
        self._forsake(self._unsent())
        super()._lost(error)

    def _forsake(self, messages: list[bytes]) -> None:
        """They will not be sent here, and nothing of them has been."""
        if messages:
            self._unsent_branches |= frozenset(map(_branch, filter(_is_asked, messages)))

    def _withdraw_requests(self) -> None:
        """Nobody will answer those that wait to be written: they can go another way as long as nothing has left."""
        requests = list(filter(_is_asked, self._out))
        if requests:
            self._out = [data for data in self._out if not _is_asked(data)]
            self._queued -= sum(map(len, requests))
            self._forsake(requests)

    def _queue_changed(self) -> None:
        if self._queued or self.buffered:
            self._count_buffered()
        settings = self._owner.settings
        if self._queued > settings.send_high_mark:
            # Who does not take our answers gets to ask no more. But answers to us are read in any case: two peers
            # that flood each other would wait for each other for ever.
            if self.unanswered:
                self.resume_reading(SENDING)
            elif SENDING not in self._paused:
                self._owner.counts.refused["send_high_mark"] += 1
                self.pause_reading(SENDING)
        elif self._queued <= settings.send_high_mark // 2:
            if self._paused:
                self.resume_reading(SENDING)
            if self.pool is not None and self.pool.waiting:
                self._owner.loop.at_turn_end(self.pool.serve)
        if self.phase == DEAF and not self._owed and not self._queued:
            self.close(None)

    def _count_buffered(self) -> None:
        kept = self._queued + self._framer.buffered
        self._owner.count_buffered(kept - self.buffered)
        self.buffered = kept

    def _destroy(self) -> None:
        super()._destroy()
        if self.buffered:
            self._framer.close()
            self._count_buffered()

    # ------------------------------------------------------------------ messages in

    def _received(self, data: bytes) -> None:
        framer = self._framer
        self._heard = now = self._owner.loop.now
        self._is_doubted = False
        self._ping_sent = None
        try:
            framed = framer.feed(data)
        except MessageParsingException:
            framed = []
        messages: list[Request | Response | Malformed] = []
        requests = unanswerable = pings = 0
        for message in framed:
            kind = type(message)
            if kind is Response:
                messages.append(message)  # type: ignore[arg-type]
            elif kind is Request:
                messages.append(message)  # type: ignore[arg-type]
                if message.method != "ACK":  # type: ignore[union-attr]
                    requests += 1
            elif kind is Ping:
                pings += 1
            elif kind is not Pong:
                messages.append(message)  # type: ignore[arg-type]
                requests += 1
                unanswerable += message.error.answer is None  # type: ignore[union-attr]
        if framer.in_message:
            if framed or self._message_since is None:
                self._message_since = now
                self._owner.deadlines.arm(self, now + self._owner.settings.message_timeout)
        else:
            self._message_since = None
        if self._message_since is not None or self.buffered:
            self._count_buffered()
        if pings:
            self._pinged(now, pings)
        if messages:
            self._owner.counts.messages_received(messages)
            self._owed += requests - unanswerable
            self.messages_received += len(messages)
            if not self._proved:
                self._proved = any(type(message) is not Malformed for message in messages)
            if requests and self._owner.settings.maximum_requests_per_second is not None:
                self._limit_rate(now, requests)
            self._owner.messages_received(self, messages)
        if framer.error is not None and self.phase == OPEN:
            self._unframeable(framer.error)

    def _pinged(self, now: float, pings: int) -> None:
        """Answer each with a CRLF (RFC 5626 4.4.1)."""
        limit = self._owner.settings.maximum_pings_per_second
        if self._pings is None:
            self._pings = Quota(limit, now)
        if not self._pings.take(now, pings):
            sentence = f"{self.peer} sent more than {limit} keep-alive pings a second, so the connection was closed."
            self.close(limited("maximum_pings_per_second", ConnectionFailureException(sentence)))
        elif self.phase == OPEN:
            self._put(PONG * pings)

    def _limit_rate(self, now: float, requests: int) -> None:
        rate = self._owner.settings.maximum_requests_per_second
        assert rate is not None
        if self._requests is None:
            self._requests = Quota(rate, now)
        rest = self._requests.owe(now, requests)
        if rest and RATE not in self._paused:
            self._owner.counts.refused["maximum_requests_per_second"] += 1
            self.pause_reading(RATE)
            self._owner.loop.call_later(rest, self.resume_reading, RATE)

    def _resumed(self) -> None:
        # What the peer said meanwhile lies unread: it was we who were silent.
        self._heard = now = self._owner.loop.now
        if self._message_since is not None:
            self._message_since = now
        if self._ping_sent is not None:
            self._ping_sent = now
        self._owner.deadlines.arm(self, self._next(now))

    def _unframeable(self, error: MessageParsingException) -> None:
        """Where the next message begins cannot be told: answer if possible, and close (RFC 3261 18.3)."""
        self._owner.counts.limit_reached(error)
        if error.answer is not None:
            answer = error.answer.to_bytes()
            self.messages_sent += 1
            self._owner.counts.sent[answer[8:11]] += 1
            self._put(answer)
            self._owner.answered(self, answer)
        sentence = f"{self.peer} sent what cannot be cut into SIP messages, so the connection was closed: {error}"
        failure = limited(error._limit or "framing", ConnectionFailureException(sentence))
        failure.__cause__ = error
        self._go_deaf(failure)

    def _input_ended(self) -> None:
        self._withdraw_requests()
        if self._framer.close():
            self._go_deaf(ConnectionFailureException(f"{self.peer} closed the connection in the middle of a message."))
        else:
            self._go_deaf(None)

    def _go_deaf(self, error: RealTimeException | None) -> None:
        """Nothing more will be read. Requests that were are still answered, unless some of ours wait for nothing."""
        if self._owed and not self.unanswered:
            self.phase = DEAF
            self.is_connected = False
            self._set_limit(self._owner.settings.handler_limit)
            self._watch()
        else:
            self.close(error)

    # ------------------------------------------------------------------ time

    def _next(self, now: float) -> float:
        """When something may be due, as things are."""
        settings = self._owner.settings
        due = NEVER
        if self._stalled_since is not None:
            due = self._stalled_since + settings.send_timeout
        if not self._paused:
            due = min(due, self._heard + settings.idle_timeout, self._ping_at)
            if not self._proved:
                due = min(due, self.opened_at + settings.first_message_timeout)
            if self._message_since is not None:
                due = min(due, self._message_since + settings.message_timeout)
            if self._ping_sent is not None:
                due = min(due, self._ping_sent + settings.pong_timeout)
        return due

    def _check(self, now: float) -> None:
        settings = self._owner.settings
        if self._failed is not None:
            super()._check(now)
        elif self._stalled_since is not None and now >= self._stalled_since + settings.send_timeout:
            sentence = (
                f"{self.peer} took nothing of what was sent to it for {settings.send_timeout:g} s, so the connection"
            )
            self._lost(limited("send_timeout", ConnectionFailureException(f"{sentence} was closed.")))
        elif self.phase == AUTHORIZATION and now >= self._limit:
            denied = self._denied(f"nobody allowed it within {settings.authorization_timeout:g} s")
            self.close(limited("authorization_timeout", denied))
        elif self.phase == DEAF and now >= self._limit:
            self.close(None)
        elif self.phase != OPEN:
            super()._check(now)
        else:
            if not self._paused:
                self._check_input(now)
            if self.phase == OPEN:
                self._owner.deadlines.arm(self, self._next(now))

    def _check_input(self, now: float) -> None:
        settings = self._owner.settings
        if self._ping_sent is not None and now >= self._ping_sent + settings.pong_timeout:
            sentence = (
                f"{self.peer} did not answer a keep-alive ping within {settings.pong_timeout:g} s, so the connection"
            )
            self._lost(limited("pong_timeout", ConnectionFailureException(f"{sentence} was closed.")))
        elif self._message_since is not None and now >= self._message_since + settings.message_timeout:
            self._too_slow(f"one message to the end within {settings.message_timeout:g} s", "message_timeout")
        elif not self._proved and now >= self.opened_at + settings.first_message_timeout:
            self._too_slow(f"a valid message within {settings.first_message_timeout:g} s", "first_message_timeout")
        elif now >= self._heard + settings.idle_timeout:
            sentence = f"Nothing was said on the connection with {self.peer} for {settings.idle_timeout:g} s, so it was closed."
            self.close(limited("idle_timeout", ConnectionFailureException(sentence)))
        elif now >= self._ping_at:
            assert settings.keep_alive_interval is not None
            self._ping_at = now + settings.keep_alive_interval * random.uniform(0.8, 1.0)
            if self._ping_sent is None:  # else the one before is still to be answered
                self._ping_sent = now
                self._put(PING)

    def _too_slow(self, what: str, limit: str) -> None:
        sentence = f"{self.peer} did not send {what}, so the connection was closed."
        self.close(limited(limit, ConnectionFailureException(sentence)))


def _is_asked(message: bytes) -> bool:
    """It is a request that waits for an answer."""
    return not message.startswith((b"SIP/2.0 ", b"ACK ", PONG))


def _branch(message: bytes) -> bytes:
    """That of our Via, which is the first one."""
    via = message.partition(b"\r\nVia: ")[2].partition(b"\r\n")[0]
    return via.partition(b";branch=")[2].partition(b";")[0]
