"""The four state machines of RFC 3261 17 as amended by RFC 6026, as data.

A row says: in this state, upon this input, go to that state and do these things in order. The things are methods
of the transaction (:mod:`p2psip.core.transaction`). The rows are those of unreliable transports; what is left of
them on reliable ones follows from them (:attr:`Table.reliable`).

The figures leave out what they ignore; here each ignored pair is listed, so that each pair is decided exactly once.
``python tools/state_tables.py`` draws the tables.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Callable
from typing import NamedTuple


class State(enum.Enum):
    """Where a transaction is."""

    __hash__ = object.__hash__  # the default one of enum is Python code, and the tables are looked up all the time

    CALLING = "Calling"
    TRYING = "Trying"
    PROCEEDING = "Proceeding"
    ACCEPTED = "Accepted"
    COMPLETED = "Completed"
    CONFIRMED = "Confirmed"
    TERMINATED = "Terminated"


class Input(enum.Enum):
    """What can happen to a transaction."""

    __hash__ = object.__hash__

    # From the wire.
    REQUEST = "request again"
    ACK = "ACK"
    PROVISIONAL = "1xx"
    FINAL = "200-699"
    SUCCESS = "2xx"
    FAILURE = "300-699"
    TRANSPORT_ERROR = "flow lost"

    # From the transaction's user.
    SEND_PROVISIONAL = "send 1xx"
    SEND_FINAL = "send 200-699"
    SEND_SUCCESS = "send 2xx"
    SEND_FAILURE = "send 300-699"
    CANCEL = "cancel"
    ABANDON = "abandon"

    # Time. RFC 3261 table 4 and RFC 6026 name the letters.
    TIMER_A = "timer A"
    TIMER_B = "timer B"
    TIMER_D = "timer D"
    TIMER_E = "timer E"
    TIMER_F = "timer F"
    TIMER_G = "timer G"
    TIMER_H = "timer H"
    TIMER_I = "timer I"
    TIMER_J = "timer J"
    TIMER_K = "timer K"
    TIMER_L = "timer L"
    TIMER_M = "timer M"
    CANCEL_LIMIT = "64*T1 after CANCEL"
    TRYING_DELAY = "time for a 100"
    HANDLER_LIMIT = "handler limit"


Pair = tuple[State, Input]
Row = tuple[State, tuple[str, ...]]

# RFC 3261 table 4: what is only for transports that lose messages. Nothing is sent again on the others, and the
# timers that wait for stray copies last 0 s there: they are over at once.
RETRANSMISSIONS = ("start_a", "restart_a", "start_e", "restart_e", "restart_e_slow", "start_g", "restart_g")
STRAYS = {"start_d": Input.TIMER_D, "start_i": Input.TIMER_I, "start_j": Input.TIMER_J, "start_k": Input.TIMER_K}


class Table(NamedTuple):
    """One figure.

    Attributes:
        title: Whose machine it is, and where it is written.
        start: The first state, and what is done on the way into it.
        rows: What each pair of state and input leads to.
        ignored: The pairs that change nothing.
    """

    title: str
    start: Row
    rows: dict[Pair, Row]
    ignored: frozenset[Pair]

    @property
    def reliable(self) -> Table:
        """The same for reliable transports: no row leads into a state that only waits for stray copies."""
        start, actions = self.start
        return self._replace(
            start=(start, tuple(name for name in actions if name not in RETRANSMISSIONS)),
            rows={pair: self._without_waiting(row) for pair, row in self.rows.items()},
        )

    def _without_waiting(self, row: Row) -> Row:
        state, actions = row
        for name in actions:
            if name in STRAYS:
                state, _ = self.rows[(state, STRAYS[name])]
        return (state, tuple(name for name in actions if name not in RETRANSMISSIONS and name not in STRAYS))


Actions = tuple[Callable[..., None], ...]


class Machine:
    """A table whose actions are methods of one class of transactions."""

    __slots__ = ("rows", "start", "state")

    def __init__(self, kind: type, table: Table) -> None:
        def methods(names: tuple[str, ...]) -> Actions:
            return tuple(getattr(kind, name) for name in names)

        self.state, actions = table.start
        self.start = methods(actions)
        self.rows: dict[tuple[State, Input], tuple[State, Actions]] = {
            pair: (state, methods(names)) for pair, (state, names) in table.rows.items()
        }


S = State
I = Input  # noqa: E741 - the tables read better so


def _ignored(*groups: tuple[State, tuple[Input, ...]]) -> frozenset[Pair]:
    return frozenset(itertools.chain.from_iterable(itertools.product((state,), inputs) for state, inputs in groups))


# A CANCEL is sent only after a provisional response (RFC 3261 9.1); one wanted earlier is held. Without a final
# response 64*T1 after it the INVITE counts as cancelled. No timer runs in Proceeding: ringing may take long, and
# how long is for the session to say. For the same reason an INVITE can be abandoned in Calling only: once the peer
# is known to work on it, it is to be cancelled.
INVITE_CLIENT = Table(
    "INVITE client transaction (RFC 3261 17.1.1, figure 5; RFC 6026 8.4)",
    (S.CALLING, ("send", "start_b", "start_a")),
    {
        (S.CALLING, I.TIMER_A): (S.CALLING, ("retransmit", "restart_a")),
        (S.CALLING, I.TIMER_B): (S.TERMINATED, ("fail_timeout",)),
        (S.CALLING, I.PROVISIONAL): (S.PROCEEDING, ("stop_timers", "send_held_cancel", "pass_up")),
        (S.CALLING, I.SUCCESS): (S.ACCEPTED, ("start_m", "pass_up")),
        (S.CALLING, I.FAILURE): (S.COMPLETED, ("acknowledge", "start_d", "pass_up")),
        (S.CALLING, I.CANCEL): (S.CALLING, ("hold_cancel",)),
        (S.CALLING, I.ABANDON): (S.TERMINATED, ()),
        (S.CALLING, I.TRANSPORT_ERROR): (S.TERMINATED, ("fail_transport",)),
        (S.PROCEEDING, I.PROVISIONAL): (S.PROCEEDING, ("pass_up",)),
        (S.PROCEEDING, I.SUCCESS): (S.ACCEPTED, ("start_m", "pass_up")),
        (S.PROCEEDING, I.FAILURE): (S.COMPLETED, ("acknowledge", "start_d", "pass_up")),
        (S.PROCEEDING, I.CANCEL): (S.PROCEEDING, ("send_cancel",)),
        (S.PROCEEDING, I.CANCEL_LIMIT): (S.TERMINATED, ("fail_timeout",)),
        (S.PROCEEDING, I.TRANSPORT_ERROR): (S.TERMINATED, ("fail_transport",)),
        (S.ACCEPTED, I.SUCCESS): (S.ACCEPTED, ("pass_up",)),
        (S.ACCEPTED, I.TIMER_M): (S.TERMINATED, ()),
        (S.ACCEPTED, I.TRANSPORT_ERROR): (S.TERMINATED, ()),
        (S.COMPLETED, I.FAILURE): (S.COMPLETED, ("acknowledge",)),
        (S.COMPLETED, I.TIMER_D): (S.TERMINATED, ()),
        (S.COMPLETED, I.TRANSPORT_ERROR): (S.TERMINATED, ()),
    },
    _ignored(
        (S.CALLING, (I.TIMER_D, I.TIMER_M, I.CANCEL_LIMIT)),
        (S.PROCEEDING, (I.TIMER_A, I.TIMER_B, I.TIMER_D, I.TIMER_M, I.ABANDON)),
        (S.ACCEPTED, (I.TIMER_A, I.TIMER_B, I.TIMER_D, I.CANCEL_LIMIT, I.PROVISIONAL, I.FAILURE, I.CANCEL, I.ABANDON)),
        (S.COMPLETED, (I.TIMER_A, I.TIMER_B, I.TIMER_M, I.CANCEL_LIMIT, I.PROVISIONAL, I.SUCCESS, I.CANCEL, I.ABANDON)),
        (S.TERMINATED, (I.TIMER_A, I.TIMER_B, I.TIMER_D, I.TIMER_M, I.CANCEL_LIMIT)),
        (S.TERMINATED, (I.PROVISIONAL, I.SUCCESS, I.FAILURE, I.CANCEL, I.ABANDON, I.TRANSPORT_ERROR)),
    ),
)

# Timer E runs on in Proceeding, at T2. An abandoned transaction leaves nothing behind: its late answers are strays.
NON_INVITE_CLIENT = Table(
    "non-INVITE client transaction (RFC 3261 17.1.2, figure 6)",
    (S.TRYING, ("send", "start_f", "start_e")),
    {
        (S.TRYING, I.TIMER_E): (S.TRYING, ("retransmit", "restart_e")),
        (S.TRYING, I.TIMER_F): (S.TERMINATED, ("fail_timeout",)),
        (S.TRYING, I.PROVISIONAL): (S.PROCEEDING, ("pass_up",)),
        (S.TRYING, I.FINAL): (S.COMPLETED, ("start_k", "pass_up")),
        (S.TRYING, I.ABANDON): (S.TERMINATED, ()),
        (S.TRYING, I.TRANSPORT_ERROR): (S.TERMINATED, ("fail_transport",)),
        (S.PROCEEDING, I.TIMER_E): (S.PROCEEDING, ("retransmit", "restart_e_slow")),
        (S.PROCEEDING, I.TIMER_F): (S.TERMINATED, ("fail_timeout",)),
        (S.PROCEEDING, I.PROVISIONAL): (S.PROCEEDING, ("pass_up",)),
        (S.PROCEEDING, I.FINAL): (S.COMPLETED, ("start_k", "pass_up")),
        (S.PROCEEDING, I.ABANDON): (S.TERMINATED, ()),
        (S.PROCEEDING, I.TRANSPORT_ERROR): (S.TERMINATED, ("fail_transport",)),
        (S.COMPLETED, I.TIMER_K): (S.TERMINATED, ()),
        (S.COMPLETED, I.TRANSPORT_ERROR): (S.TERMINATED, ()),
    },
    _ignored(
        (S.TRYING, (I.TIMER_K,)),
        (S.PROCEEDING, (I.TIMER_K,)),
        (S.COMPLETED, (I.TIMER_E, I.TIMER_F, I.PROVISIONAL, I.FINAL, I.ABANDON)),
        (S.TERMINATED, (I.TIMER_E, I.TIMER_F, I.TIMER_K, I.PROVISIONAL, I.FINAL, I.ABANDON, I.TRANSPORT_ERROR)),
    ),
)

# The 100 after 200 ms is the transaction's. The handler limit ends with the first provisional response of the user:
# from there on ringing has a limit of its own, which is the session's. 2xx are retransmitted by the session as well.
INVITE_SERVER = Table(
    "INVITE server transaction (RFC 3261 17.2.1, figure 7; RFC 6026 8.5)",
    (S.PROCEEDING, ("start_trying_delay",)),
    {
        (S.PROCEEDING, I.REQUEST): (S.PROCEEDING, ("repeat",)),
        (S.PROCEEDING, I.TRYING_DELAY): (S.PROCEEDING, ("send_trying", "start_handler_limit")),
        (S.PROCEEDING, I.HANDLER_LIMIT): (S.PROCEEDING, ("expire",)),
        (S.PROCEEDING, I.SEND_PROVISIONAL): (S.PROCEEDING, ("stop_timers", "send")),
        (S.PROCEEDING, I.SEND_SUCCESS): (S.ACCEPTED, ("start_l", "send")),
        (S.PROCEEDING, I.SEND_FAILURE): (S.COMPLETED, ("start_h", "start_g", "send")),
        (S.PROCEEDING, I.TRANSPORT_ERROR): (S.TERMINATED, ("fail_transport",)),
        (S.ACCEPTED, I.SEND_SUCCESS): (S.ACCEPTED, ("send",)),
        (S.ACCEPTED, I.ACK): (S.ACCEPTED, ("pass_ack",)),
        (S.ACCEPTED, I.TIMER_L): (S.TERMINATED, ()),
        (S.ACCEPTED, I.TRANSPORT_ERROR): (S.TERMINATED, ("fail_transport",)),
        (S.COMPLETED, I.REQUEST): (S.COMPLETED, ("repeat",)),
        (S.COMPLETED, I.TIMER_G): (S.COMPLETED, ("repeat", "restart_g")),
        (S.COMPLETED, I.TIMER_H): (S.TERMINATED, ("fail_unacknowledged",)),
        (S.COMPLETED, I.ACK): (S.CONFIRMED, ("start_i",)),
        (S.COMPLETED, I.TRANSPORT_ERROR): (S.TERMINATED, ("fail_transport",)),
        (S.CONFIRMED, I.TIMER_I): (S.TERMINATED, ()),
        (S.CONFIRMED, I.TRANSPORT_ERROR): (S.TERMINATED, ()),
    },
    _ignored(
        (S.PROCEEDING, (I.ACK, I.TIMER_G, I.TIMER_H, I.TIMER_I, I.TIMER_L)),
        (S.ACCEPTED, (I.REQUEST, I.SEND_PROVISIONAL, I.SEND_FAILURE)),
        (S.ACCEPTED, (I.TRYING_DELAY, I.HANDLER_LIMIT, I.TIMER_G, I.TIMER_H, I.TIMER_I)),
        (S.COMPLETED, (I.SEND_PROVISIONAL, I.SEND_SUCCESS, I.SEND_FAILURE)),
        (S.COMPLETED, (I.TRYING_DELAY, I.HANDLER_LIMIT, I.TIMER_I, I.TIMER_L)),
        (S.CONFIRMED, (I.REQUEST, I.ACK, I.SEND_PROVISIONAL, I.SEND_SUCCESS, I.SEND_FAILURE)),
        (S.CONFIRMED, (I.TRYING_DELAY, I.HANDLER_LIMIT, I.TIMER_G, I.TIMER_H, I.TIMER_L)),
        (S.TERMINATED, (I.REQUEST, I.ACK, I.SEND_PROVISIONAL, I.SEND_SUCCESS, I.SEND_FAILURE, I.TRANSPORT_ERROR)),
        (S.TERMINATED, (I.TRYING_DELAY, I.HANDLER_LIMIT, I.TIMER_G, I.TIMER_H, I.TIMER_I, I.TIMER_L)),
    ),
)

# RFC 4320: a 100 only after 3.5 s, and never a 408. The handler limit is ours: a request is answered in any case.
NON_INVITE_SERVER = Table(
    "non-INVITE server transaction (RFC 3261 17.2.2, figure 8; RFC 4320 4)",
    (S.TRYING, ("start_trying_delay",)),
    {
        (S.TRYING, I.TRYING_DELAY): (S.PROCEEDING, ("send_trying", "start_handler_limit")),
        (S.TRYING, I.HANDLER_LIMIT): (S.TRYING, ("expire",)),
        (S.TRYING, I.SEND_PROVISIONAL): (S.PROCEEDING, ("send",)),
        (S.TRYING, I.SEND_FINAL): (S.COMPLETED, ("start_j", "send")),
        (S.TRYING, I.TRANSPORT_ERROR): (S.TERMINATED, ("fail_transport",)),
        (S.PROCEEDING, I.REQUEST): (S.PROCEEDING, ("repeat",)),
        (S.PROCEEDING, I.TRYING_DELAY): (S.PROCEEDING, ("start_handler_limit",)),
        (S.PROCEEDING, I.HANDLER_LIMIT): (S.PROCEEDING, ("expire",)),
        (S.PROCEEDING, I.SEND_PROVISIONAL): (S.PROCEEDING, ("send",)),
        (S.PROCEEDING, I.SEND_FINAL): (S.COMPLETED, ("start_j", "send")),
        (S.PROCEEDING, I.TRANSPORT_ERROR): (S.TERMINATED, ("fail_transport",)),
        (S.COMPLETED, I.REQUEST): (S.COMPLETED, ("repeat",)),
        (S.COMPLETED, I.TIMER_J): (S.TERMINATED, ()),
        (S.COMPLETED, I.TRANSPORT_ERROR): (S.TERMINATED, ()),
    },
    _ignored(
        (S.TRYING, (I.REQUEST, I.TIMER_J)),
        (S.PROCEEDING, (I.TIMER_J,)),
        (S.COMPLETED, (I.SEND_PROVISIONAL, I.SEND_FINAL, I.TRYING_DELAY, I.HANDLER_LIMIT)),
        (S.TERMINATED, (I.REQUEST, I.SEND_PROVISIONAL, I.SEND_FINAL, I.TRANSPORT_ERROR)),
        (S.TERMINATED, (I.TRYING_DELAY, I.HANDLER_LIMIT, I.TIMER_J)),
    ),
)

TABLES = (INVITE_CLIENT, NON_INVITE_CLIENT, INVITE_SERVER, NON_INVITE_SERVER)
