"""What is alive in a connection manager at one moment: ``manager.snapshot()``."""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from p2psip.core.dialog import Dialog
from p2psip.core.request import ClientRequest
from p2psip.core.transaction import ClientTransaction, ServerTransaction
from p2psip.errors import RealTimeException
from p2psip.logs import clean
from p2psip.net import channel
from p2psip.net.connection import Connection
from p2psip.net.sockets import host_and_port
from p2psip.statistics import plain
from p2psip.sync import Strand
from p2psip.values import IPEndPoint

if TYPE_CHECKING:
    from p2psip.stack import Stack

_T = TypeVar("_T")

_PHASES = {
    channel.HANDSHAKE: "handshake",
    channel.AUTHORIZATION: "waiting for authorization",
    channel.OPEN: "open",
    channel.DEAF: "answering the last requests",
}

_USAGES = {
    "Session": "session",
    "Leg": "subscription",
    "Notifier": "notifier",
    "OutgoingRefer": "transfer of ours",
    "OutsideRefer": "transfer of ours",
    "IncomingRefer": "transfer",
    "IncomingOutsideRefer": "transfer",
}


@dataclasses.dataclass(frozen=True)
class ListenerSnapshot:
    """What is listened on.

    Attributes:
        address: Where.
        transport: ``"TCP"`` or ``"TLS"``.
    """

    address: IPEndPoint
    transport: str

    def __str__(self) -> str:
        return f"{self.transport} {host_and_port(*self.address)}"


@dataclasses.dataclass(frozen=True)
class ConnectionSnapshot:
    """One connection. Times are seconds, sizes bytes without TLS and what is below it.

    Attributes:
        id: The number that it also has as a RealTimeConnection.
        transport: ``"TCP"`` or ``"TLS"``.
        is_incoming: The peer opened it.
        local, peer: The two addresses.
        host: The host as it was asked for; None on incoming ones.
        state: ``"handshake"``, ``"waiting for authorization"``, ``"open"``, ``"answering the last requests"`` or
            ``"closing"``.
        age: Since it is open, or since it was begun.
        idle: Since the peer was heard, or it was opened.
        bytes_sent, bytes_received, messages_sent, messages_received: So far.
        unsent: Bytes that wait to be written.
        unanswered: Requests of ours on it that have no final answer yet.
        is_paused: It is not read at the moment, because a limit is reached.
        identities: The names that the peer's verified certificate carries.
        tls_version: ``"TLSv1.2"`` or ``"TLSv1.3"``; None on TCP and before the handshake is over.
    """

    id: int
    transport: str
    is_incoming: bool
    local: IPEndPoint
    peer: IPEndPoint
    host: str | None
    state: str
    age: float
    idle: float
    bytes_sent: int
    bytes_received: int
    messages_sent: int
    messages_received: int
    unsent: int
    unanswered: int
    is_paused: bool
    identities: tuple[str, ...]
    tls_version: str | None

    def __str__(self) -> str:
        arrow = "from" if self.is_incoming else f"to {self.host} at" if self.host else "to"
        parts = [
            f"{self.id}: {self.tls_version or self.transport} {arrow} {host_and_port(*self.peer)}",
            f"{self.state}{' (not read)' if self.is_paused else ''}",
            f"{_time(self.age)} old",
            f"idle {_time(self.idle)}",
            f"sent {self.messages_sent} ({self.bytes_sent} bytes)",
            f"received {self.messages_received} ({self.bytes_received} bytes)",
        ]
        if self.unsent:
            parts.append(f"{self.unsent} bytes unsent")
        if self.unanswered:
            parts.append(f"{self.unanswered} unanswered")
        if self.identities:
            parts.append(f"certificate of {' '.join(self.identities)}")
        return clean(", ".join(parts))


@dataclasses.dataclass(frozen=True)
class TransactionSnapshot:
    """One transaction, or a request of ours that has none yet.

    Attributes:
        is_client: It is a request of ours.
        method: Its method.
        peer: The address at the other end; None where there is no connection yet.
        state: That of RFC 3261 17 (``"Trying"``, ``"Proceeding"``, ...); ``"Opening"`` while there is no connection.
        age: Seconds.
        branch: That of its Via; None before it has one.
        call_id: As the request says.
    """

    is_client: bool
    method: str
    peer: IPEndPoint | None
    state: str
    age: float
    branch: str | None
    call_id: str | None

    def __str__(self) -> str:
        whose = "ours to" if self.is_client else "of"
        peer = "nobody yet" if self.peer is None else host_and_port(*self.peer)
        ids = f"Call-ID {clean(self.call_id)}, branch {clean(self.branch)}"
        return f"{clean(self.method)} {whose} {peer}, {self.state}, {_time(self.age)} old, {ids}"


@dataclasses.dataclass(frozen=True)
class DialogSnapshot:
    """One dialog.

    Attributes:
        call_id, local_tag, remote_tag: What it is known by (RFC 3261 12).
        usages: What lives in it, with its state where it has one: ``"session (connected)"``.
        state: ``"early"`` or ``"confirmed"``.
        age: Seconds.
        owner: Whose it is: the URI of the endpoint's owner.
        peer: The address that its connection leads to; None when that is gone and it needs another one.
    """

    call_id: str
    local_tag: str | None
    remote_tag: str | None
    usages: tuple[str, ...]
    state: str
    age: float
    owner: str
    peer: IPEndPoint | None

    def __str__(self) -> str:
        peer = "no connection" if self.peer is None else host_and_port(*self.peer)
        tags = f"tags {clean(self.local_tag)} and {clean(self.remote_tag)}"
        what = ", ".join(self.usages) or "nothing"
        return (
            f"{what} of {clean(self.owner)} with {peer}, {self.state}, {_time(self.age)} old, "
            f"Call-ID {clean(self.call_id)}, {tags}"
        )


@dataclasses.dataclass(frozen=True)
class StrandSnapshot:
    """The queue of one object whose events wait or run; those with nothing to do are not listed.

    Attributes:
        name: Whose events these are.
        waiting: Events that wait, without the one that runs.
        handler: The name of the function that runs; None when none does.
        running_for: Seconds since that event was begun; None when none runs.
    """

    name: str
    waiting: int
    handler: str | None
    running_for: float | None

    def __str__(self) -> str:
        runs = "nothing runs" if self.running_for is None else f"{clean(self.handler)} for {_time(self.running_for)}"
        return f"{clean(self.name)}: {runs}, {self.waiting} waiting"


@dataclasses.dataclass(frozen=True)
class ManagerSnapshot:
    """What is alive in a connection manager at one moment, oldest first. Immutable; ``str()`` of it is for people.

    Attributes:
        name: The manager's.
        time: When, in seconds since the epoch.
        listeners, connections, transactions, dialogs, strands: What there is, at most so many of a kind as were asked for.
        left_out: How many there are besides, by these names.
    """

    name: str
    time: float
    listeners: tuple[ListenerSnapshot, ...]
    connections: tuple[ConnectionSnapshot, ...]
    transactions: tuple[TransactionSnapshot, ...]
    dialogs: tuple[DialogSnapshot, ...]
    strands: tuple[StrandSnapshot, ...]
    left_out: Mapping[str, int]

    def as_dict(self) -> dict[str, Any]:
        """The same as dictionaries and lists of numbers and text: ready for ``json.dumps``."""
        result: dict[str, Any] = plain(self)
        return result

    def __str__(self) -> str:
        when = datetime.datetime.fromtimestamp(self.time).strftime("%Y-%m-%d %H:%M:%S")
        lines = [f"{self.name} at {when}"]
        for name in ("listeners", "connections", "transactions", "dialogs", "strands"):
            entries = getattr(self, name)
            left_out = self.left_out.get(name, 0)
            lines.append(f"{name}: {len(entries) + left_out}")
            lines += [f"  {entry}" for entry in entries]
            if left_out:
                lines.append(f"  and {left_out} more")
        return "\n".join(lines)


def take(stack: Stack, maximum: int) -> ManagerSnapshot:
    """Loop thread, or when there is no loop."""
    network, engine, now = stack.network, stack.engine, stack.loop.now
    transport = "TLS" if network.has_tls else "TCP"
    connections = network.every_connection()
    requests: list[ClientRequest | ClientTransaction | ServerTransaction] = []
    for group in (engine._opening, engine._clients.values(), engine._servers.values()):
        requests += itertools.islice(group, maximum - len(requests))
    dialogs = list(itertools.islice(engine.dialogs, maximum))
    strands = stack.dispatcher.busy_strands()
    alive = len(engine._opening) + len(engine._clients) + len(engine._servers)
    left_out = {
        "connections": len(connections) - maximum,
        "transactions": alive - len(requests),
        "dialogs": len(engine.dialogs) - len(dialogs),
        "strands": len(strands) - maximum,
    }
    return ManagerSnapshot(
        stack.loop.name,
        time.time(),
        tuple(ListenerSnapshot(IPEndPoint(*address), transport) for address in network.listening_addresses),
        tuple(_connection(each, now) for each in connections[:maximum]),
        tuple(_transaction(each, now) for each in requests),
        tuple(_dialog(each, now) for each in dialogs),
        tuple(map(_strand, strands[:maximum])),
        MappingProxyType({name: count for name, count in left_out.items() if count > 0}),
    )


def _connection(connection: Connection, now: float) -> ConnectionSnapshot:
    tls = connection.tls
    return ConnectionSnapshot(
        connection.id,
        connection.transport,
        connection.is_incoming,
        IPEndPoint(*connection.local),
        IPEndPoint(*connection.remote),
        connection.host,
        _PHASES.get(connection.phase, "closing"),
        now - connection.opened_at,
        connection.idle(now),
        connection.bytes_sent,
        connection.bytes_received,
        connection.messages_sent,
        connection.messages_received,
        connection.queued,
        connection.unanswered,
        connection.is_paused,
        () if tls is None or tls.identities is None else tuple(tls.identities.names),
        None if tls is None else tls.version,
    )


def _transaction(each: ClientRequest | ClientTransaction | ServerTransaction, now: float) -> TransactionSnapshot:
    request = each.request
    if isinstance(each, ClientRequest):
        return TransactionSnapshot(True, request.method, None, "Opening", now - each.began_at, None, request.call_id)
    try:
        branch = request.top_branch
    except RealTimeException:  # an element of RFC 2543
        branch = None
    return TransactionSnapshot(
        isinstance(each, ClientTransaction),
        request.method,
        IPEndPoint(*each.flow.remote),
        each.state.value,
        now - each.began_at,
        branch,
        request.call_id,
    )


def _dialog(dialog: Dialog, now: float) -> DialogSnapshot:
    return DialogSnapshot(
        *dialog.key,
        tuple(map(_usage, dialog.usages)),
        "early" if dialog.is_early else "confirmed",
        now - dialog.began_at,
        str(dialog.record.owner),
        None if dialog.flow is None else IPEndPoint(*dialog.flow.remote),
    )


def _usage(usage: object) -> str:
    kind = type(usage).__name__
    state = getattr(usage, "state", None)
    name = state if isinstance(state, str) else getattr(state, "name", "").lower().replace("_", " ")
    return _USAGES.get(kind, kind) + (f" ({name})" if name else "")


def _strand(strand: Strand) -> StrandSnapshot:
    since, handler = strand.running_since, strand.handler
    if not since or handler is None:
        return StrandSnapshot(strand.name, strand.depth, None, None)
    name = getattr(handler, "__qualname__", None) or type(handler).__qualname__
    return StrandSnapshot(strand.name, strand.depth, str(name), max(0.0, time.monotonic() - since))


def _time(seconds: float) -> str:
    """``0.21 s``, ``43 s``, ``2:05:09 h``."""
    if seconds < 100:
        return f"{max(seconds, 0.0):.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} h"
