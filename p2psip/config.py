"""The timers and limits of one connection manager. All of them are on by default."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class ManagerSettings:
    """Timers and limits of one connection manager.

    Times are seconds. Immutable: make a changed copy with ``dataclasses.replace`` and give it to the manager.
    None switches a limit off where the type allows it.
    """

    # RFC 3261 table 4.
    t1: float = 0.5
    t2: float = 4.0
    t4: float = 5.0

    # Requests.
    request_ceiling: float = 60.0
    """Resolving, connecting, handshaking and waiting for the final answer, all together."""
    ring_limit: float = 180.0
    """From the first provisional answer to an INVITE to its final one."""
    provisional_delay: float = 3.5
    """A non-INVITE request still unanswered after this gets a 100 (RFC 4320)."""
    handler_limit: float = 30.0
    """A delivered request still unanswered after this gets a 500."""
    dispose_grace: float = 5.0
    """What the graceful part of ``dispose`` and ``terminate`` may take."""

    # Messages (bytes, counts).
    maximum_start_line: int = 8 * 1024
    maximum_header: int = 8 * 1024
    maximum_head: int = 64 * 1024
    maximum_headers: int = 256
    maximum_values: int = 64
    """Values in Via, Route and Record-Route."""
    maximum_body: int = 1024 * 1024

    # Connections.
    maximum_connections: int = 4096
    maximum_connections_per_address: int = 128
    maximum_handshakes: int = 256
    maximum_handshakes_per_address: int = 32
    maximum_connections_per_pool: int = 5
    trusted_addresses: frozenset[str] = frozenset()
    """Remote addresses that are exempt from the limits per address."""
    connect_timeout: float = 10.0
    """For each address tried."""
    handshake_timeout: float = 10.0
    authorization_timeout: float = 30.0
    resolve_timeout: float = 10.0
    first_message_timeout: float = 32.0
    """From a fresh incoming connection to its first valid message."""
    message_timeout: float = 15.0
    """From the first byte of a message to its last."""
    idle_timeout: float = 900.0
    keep_alive_interval: float | None = None
    """Between our pings on a connection (RFC 5626); None sends none."""
    pong_timeout: float = 10.0
    maximum_pings_per_second: int = 10
    accept_pause: float = 0.2
    """How long accepting rests when the process has no descriptors left."""
    maximum_handshakes_per_second: float | None = None
    maximum_handshakes_per_second_per_address: float | None = None
    maximum_requests_per_second: float | None = None
    """On each connection; above it reading rests."""

    # Sending (bytes).
    send_high_mark: int = 256 * 1024
    """Queued on a connection above which we stop reading from it."""
    maximum_send_queue: int = 1024 * 1024
    """Queued on a connection above which it is closed."""
    send_timeout: float = 20.0
    """Without any progress in sending."""
    maximum_buffered: int = 64 * 1024 * 1024
    """Queued for sending and of messages still coming in, on all connections together; above it the connection that
    holds most is closed."""

    # Transactions, dialogs and queues (counts).
    maximum_transactions: int = 100_000
    maximum_unanswered_per_connection: int = 10_000
    maximum_dialogs: int = 100_000
    strand_high_mark: int = 1000
    strand_low_mark: int = 500
    maximum_workers: int = 256
    """Threads that run handlers; as many as handlers that block at the same time."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float) and value < 0:
                raise ValueError(f"{field.name} is {value!r}, but a time or a limit cannot be negative.")
            if "_per_second" in field.name and value == 0:
                raise ValueError(f"{field.name} is 0, which would let nothing through: give a rate above 0.")
        if self.strand_low_mark > self.strand_high_mark:
            raise ValueError("strand_low_mark must not be above strand_high_mark.")
