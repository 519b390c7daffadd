"""What a connection manager has done so far, as numbers: ``manager.statistics()``."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from p2psip.errors import TlsFailureReason
from p2psip.net.counts import Sent
from p2psip.sync.latency import BOUNDS

if TYPE_CHECKING:
    from p2psip.stack import Stack

HANDSHAKE_RESULTS = (
    "ok",
    *(reason.name.lower() for reason in TlsFailureReason),
    "timeout",
    "aborted",
    "refused_afterwards",
)
"""Each is there from the beginning. ``aborted``: we lost interest, or the connection was lost. ``refused_afterwards``: we
had connected, and what the peer thinks of our certificate came when the handshake was over for us (TLS 1.3); such a
handshake has counted as ``ok`` before."""

ENDINGS = (
    *("peer", "lost", "handshake", "certificate", "tls", "denied", "disconnect", "disposed", "framing"),
    *("idle_timeout", "first_message_timeout", "message_timeout", "send_timeout", "pong_timeout"),
    *("handshake_timeout", "authorization_timeout"),
    *("maximum_send_queue", "maximum_buffered", "maximum_pings_per_second"),
    *("maximum_start_line", "maximum_head", "maximum_body"),
)
"""What ends connections. ``peer``: in order, by the peer; ``lost``: without the end that is due; ``handshake``: TLS was
refused, the other counters say by what; ``certificate``: the peer's has expired, is revoked, or has not the right name;
``tls``: it failed after the handshake; ``denied``: by the application; ``disconnect``: by its ``disconnect()``;
``disposed``: with the manager; ``framing``: what came could not be cut into messages. The others are fields of
``ManagerSettings``."""

LIMITS = (
    *("maximum_start_line", "maximum_header", "maximum_head", "maximum_headers", "maximum_values", "maximum_body"),
    *("maximum_connections", "maximum_connections_per_address", "maximum_connections_per_pool"),
    *("maximum_handshakes", "maximum_handshakes_per_address"),
    *("maximum_handshakes_per_second", "maximum_handshakes_per_second_per_address"),
    *("maximum_requests_per_second", "maximum_pings_per_second"),
    *("send_high_mark", "maximum_send_queue", "maximum_buffered"),
    *("maximum_transactions", "maximum_unanswered_per_connection", "maximum_dialogs", "strand_high_mark"),
)
"""The fields of ``ManagerSettings`` that can keep something out. At ``send_high_mark``, ``strand_high_mark`` and
``maximum_requests_per_second`` reading rests, and each rest counts; so do each 503 of ``strand_high_mark`` and
each peer that is turned away while ten times as many events of connections wait."""

TIMEOUTS = (
    *(
        "resolve_timeout",
        "connect_timeout",
        "handshake_timeout",
        "authorization_timeout",
        "first_message_timeout",
        "message_timeout",
    ),
    *("idle_timeout", "send_timeout", "pong_timeout"),
    *("transaction", "request_ceiling", "caller", "handler_limit", "ring_limit", "acknowledgement"),
)
"""``transaction``: no answer within 64*T1; ``caller``: within the time-out that was given with a request;
``acknowledgement``: no ACK or PRACK within 64*T1. The others are fields of ``ManagerSettings``."""


@dataclasses.dataclass(frozen=True)
class ConnectionStatistics:
    """TCP and TLS connections.

    Attributes:
        open: At this moment, those in handshake included.
        opened: So far, by ``"incoming"`` and ``"outgoing"``.
        closed: So far, by what ended them: see ``p2psip.statistics.ENDINGS``.
        handshakes: TLS handshakes by result: see ``p2psip.statistics.HANDSHAKE_RESULTS``.
        bytes_sent, bytes_received: So far, without TLS and what is below it.
    """

    open: int
    opened: Mapping[str, int]
    closed: Mapping[str, int]
    handshakes: Mapping[str, int]
    bytes_sent: int
    bytes_received: int


@dataclasses.dataclass(frozen=True)
class MessageStatistics:
    """Messages of one direction so far, keep-alives not counted.

    Attributes:
        requests: By method; all that the library does not know are ``"other"``.
        responses: By status code.
        malformed: What was no SIP message (received only).
    """

    requests: Mapping[str, int]
    responses: Mapping[int, int]
    malformed: int

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.requests.values()) + sum(self.responses.values()) + self.malformed


@dataclasses.dataclass(frozen=True)
class TransactionStatistics:
    """Transactions (RFC 3261 17).

    Attributes:
        clients, servers: At this moment: requests of ours, and of others.
        opening: At this moment: requests of ours that wait for a connection.
        clients_total, servers_total: So far.
        retransmitted: Responses that were sent again because no ACK or PRACK came.
        absorbed: Copies of requests that had come before.
        strays: Responses that match no request of ours; they are dropped.
    """

    clients: int
    servers: int
    opening: int
    clients_total: int
    servers_total: int
    retransmitted: int
    absorbed: int
    strays: int


@dataclasses.dataclass(frozen=True)
class HandlerStatistics:
    """What was called on workers: handlers of events, a call for each event.

    Attributes:
        count: So far.
        seconds: All together.
        longest: Seconds of the one that took longest.
        buckets: How many took at most so many seconds, cumulative as Prometheus wants it; the last bound is infinity.
    """

    count: int
    seconds: float
    longest: float
    buckets: Mapping[float, int]


@dataclasses.dataclass(frozen=True)
class QueueStatistics:
    """What waits at this moment.

    Attributes:
        events: For handlers, in all strands.
        deepest_strand: In that with the most.
        busy_strands: Strands in which something waits or runs.
        workers: Threads that run handlers.
        inbox: Calls for the loop's thread.
        unsent_bytes: On all connections.
        most_unsent_bytes: On that with the most.
        waiting_for_connection: Requests that no connection could take yet.
    """

    events: int
    deepest_strand: int
    busy_strands: int
    workers: int
    inbox: int
    unsent_bytes: int
    most_unsent_bytes: int
    waiting_for_connection: int


@dataclasses.dataclass(frozen=True)
class ManagerStatistics:
    """What one connection manager has done so far. Immutable; counters of a later one are never lower.

    Attributes:
        uptime: Seconds from the manager's construction to this moment, or to its end.
        connections: Connections, handshakes and bytes.
        sent, received: Messages by method and by status code.
        transactions: Transactions, and what was sent or came twice.
        dialogs: At this moment: sessions, subscriptions and transfers that have one.
        refusals: So far, by the limit of ``ManagerSettings``: see ``p2psip.statistics.LIMITS``.
        timeouts: So far: see ``p2psip.statistics.TIMEOUTS``.
        handlers: How long handlers take.
        queues: What waits.
    """

    uptime: float
    connections: ConnectionStatistics
    sent: MessageStatistics
    received: MessageStatistics
    transactions: TransactionStatistics
    dialogs: int
    refusals: Mapping[str, int]
    timeouts: Mapping[str, int]
    handlers: HandlerStatistics
    queues: QueueStatistics

    def as_dict(self) -> dict[str, Any]:
        """The same as dictionaries with text as keys, down to numbers: ready for ``json.dumps`` and for exporters."""
        result: dict[str, Any] = plain(self)
        return result

    def __str__(self) -> str:
        """For people: what is not 0, a line for each."""
        return "\n".join(_lines("", self.as_dict()))


def statistics_of(stack: Stack, uptime: float) -> ManagerStatistics:
    """Any thread; also when the loop has ended. Each number is as of some moment during the call."""
    network, engine, pressure = stack.network, stack.engine, stack.pressure
    counts, engine_counts = network.counts, engine.counts
    closed, latency = Counter(dict(counts.closed)), stack.dispatcher.latency()
    depths = [strand.depth for strand in stack.dispatcher.busy_strands()]
    unsent = [connection.queued for connection in network.every_connection()]
    refusals = Counter({name: closed[name] for name in LIMITS if name in closed and name not in _BY_PARSER})
    refusals.update(dict(counts.refused))
    refusals.update(dict(engine_counts.refused))
    refusals["strand_high_mark"] += sum(pressure.counts.values())
    refusals["maximum_dialogs"] += engine.dialogs.refused
    timeouts = Counter({name: closed[name] for name in TIMEOUTS if name in closed})
    timeouts.update(dict(counts.timeouts))
    timeouts.update(dict(engine_counts.timeouts))
    bounds = (*BOUNDS, float("inf"))
    return ManagerStatistics(
        uptime,
        ConnectionStatistics(
            len(unsent),
            _named(("incoming", "outgoing"), dict(counts.opened)),
            _named(ENDINGS, closed),
            _named(HANDSHAKE_RESULTS, dict(counts.handshakes)),
            counts.bytes_sent,
            counts.bytes_received,
        ),
        _messages(((Sent.kind(kind), count) for kind, count in dict(counts.sent).items()), 0),
        _messages(dict(counts.received).items(), counts.malformed),
        TransactionStatistics(
            len(engine._clients),
            len(engine._servers),
            len(engine._opening),
            engine_counts.clients,
            engine_counts.servers,
            engine_counts.retransmitted,
            engine_counts.absorbed,
            engine_counts.strays,
        ),
        len(engine.dialogs),
        _named(LIMITS, refusals),
        _named(TIMEOUTS, timeouts),
        HandlerStatistics(
            sum(latency.buckets),
            latency.total,
            latency.longest,
            MappingProxyType({bound: sum(latency.buckets[: i + 1]) for i, bound in enumerate(bounds)}),
        ),
        QueueStatistics(
            sum(depths),
            max(depths, default=0),
            len(depths),
            stack.dispatcher.workers,
            stack.loop.backlog,
            sum(unsent),
            max(unsent, default=0),
            sum(len(pool.waiting) for pool in network.pools()),
        ),
    )


_BY_PARSER = frozenset(("maximum_start_line", "maximum_head", "maximum_body"))
"""Counted where they are found, and not once more when the connection ends by them."""


def _messages(kinds: Iterable[tuple[str | int, int]], malformed: int) -> MessageStatistics:
    requests: Counter[str] = Counter()
    responses: Counter[int] = Counter()
    for kind, count in kinds:
        if isinstance(kind, int):
            responses[kind] += count
        else:
            requests[kind] += count
    return MessageStatistics(
        MappingProxyType(dict(sorted(requests.items()))), MappingProxyType(dict(sorted(responses.items()))), malformed
    )


def _named(names: Iterable[str], counts: Mapping[str, int]) -> Mapping[str, int]:
    """In that order, 0 where there is nothing; and whatever else there is."""
    return MappingProxyType({**dict.fromkeys(names, 0), **counts})


def plain(value: Any) -> Any:
    """As dictionaries, lists, numbers and text."""
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {f"{key:g}" if isinstance(key, float) else str(key): plain(each) for key, each in value.items()}
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return [plain(each) for each in value]
    return value


def _lines(name: str, value: Any) -> Iterable[str]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _lines(f"{name} {key}".strip(), each)
    elif value:
        yield f"{name}: {value:.6g}" if isinstance(value, float) else f"{name}: {value}"
