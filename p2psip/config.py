"""The timers and limits of one connection manager."""

from __future__ import annotations

import dataclasses

_AT_LEAST_ONE = ("maximum_workers", "maximum_connections_per_pool", "strand_high_mark", "keep_alive_interval")


@dataclasses.dataclass(frozen=True)
class ManagerSettings:
    """Timers and limits of one connection manager.

    Times are seconds. Immutable: make a changed copy with ``dataclasses.replace`` and give it to the manager.
    All are on by default, but for the rates per second and for pings of our own, which None switches off, and for
    ``strict_key_files``.

    Raises:
        ValueError, TypeError: A value that is none.
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
    """A delivered request still unanswered after this gets a 500; one whose handler has not begun after half of it, a 503
    when its turn comes."""
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
    connect_back_off: float = 2.0
    """The longest pause before a peer is tried again that could not be reached twice in a row; pauses begin with 0.1 s and
    grow. Requests wait for its end, but for those that have another way. 0: no pauses."""
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
    """Without any progress in sending; also what a peer that has vanished is found by, where the system can (Linux)."""
    maximum_buffered: int = 64 * 1024 * 1024
    """Queued for sending and of messages still coming in, on all connections together; above it the connection that
    holds most is closed. Large requests that wait for handlers may have a quarter to a half of it besides."""

    # Transactions, dialogs and queues (counts).
    maximum_transactions: int = 100_000
    maximum_unanswered_per_connection: int = 10_000
    maximum_dialogs: int = 100_000
    strand_high_mark: int = 1000
    """Waiting for the handlers of one object. Then reading rests; what is still too much after half a second gets a 503."""
    strand_low_mark: int = 500
    maximum_workers: int = 256
    """Threads that run handlers; as many as handlers that block at the same time."""

    # Files.
    strict_key_files: bool = False
    """Refuse private keys in files that other users can read (POSIX only), instead of warning of them in the log."""

    def __post_init__(self) -> None:
        if isinstance(self.trusted_addresses, str):
            raise TypeError(f"trusted_addresses is a set of addresses, not the text {self.trusted_addresses!r}.")
        object.__setattr__(self, "trusted_addresses", frozenset(self.trusted_addresses))
        for field in dataclasses.fields(self):
            value, kind = getattr(self, field.name), str(field.type)
            if kind.startswith("frozenset") or (value is None and "None" in kind):
                continue
            if kind == "bool":
                if not isinstance(value, bool):
                    raise TypeError(f"{field.name} is True or False, not {value!r}.")
                continue
            if isinstance(value, bool) or not isinstance(value, int if kind.startswith("int") else int | float):
                raise TypeError(f"{field.name} is {kind}, not {value!r}.")
            if not value >= 0:  # which NaN is not either
                raise ValueError(f"{field.name} is {value!r}, but a time or a limit cannot be negative.")
            if value == 0 and ("_per_second" in field.name or field.name in _AT_LEAST_ONE):
                raise ValueError(f"{field.name} is 0, which would let nothing through: give more than 0.")
        if self.strand_low_mark > self.strand_high_mark:
            raise ValueError("strand_low_mark must not be above strand_high_mark.")
