"""The state tables as data: complete, without contradiction, and what the RFCs say at the places where others fail."""

from __future__ import annotations

import itertools
import pathlib
import runpy

import pytest

from p2psip.core import tables
from p2psip.core.tables import Input, State, Table
from p2psip.core.transaction import (
    InviteClientTransaction,
    InviteServerTransaction,
    NonInviteClientTransaction,
    NonInviteServerTransaction,
    Transaction,
)

S = State
I = Input  # noqa: E741

MACHINES: dict[type[Transaction], tuple[Table, str, str]] = {
    InviteClientTransaction: (
        tables.INVITE_CLIENT,
        "CALLING PROCEEDING ACCEPTED COMPLETED TERMINATED",
        "TIMER_A TIMER_B TIMER_D TIMER_M CANCEL_LIMIT PROVISIONAL SUCCESS FAILURE CANCEL ABANDON TRANSPORT_ERROR",
    ),
    NonInviteClientTransaction: (
        tables.NON_INVITE_CLIENT,
        "TRYING PROCEEDING COMPLETED TERMINATED",
        "TIMER_E TIMER_F TIMER_K PROVISIONAL FINAL ABANDON TRANSPORT_ERROR",
    ),
    InviteServerTransaction: (
        tables.INVITE_SERVER,
        "PROCEEDING ACCEPTED COMPLETED CONFIRMED TERMINATED",
        "REQUEST ACK SEND_PROVISIONAL SEND_SUCCESS SEND_FAILURE TRYING_DELAY HANDLER_LIMIT TIMER_G TIMER_H TIMER_I "
        "TIMER_L TRANSPORT_ERROR",
    ),
    NonInviteServerTransaction: (
        tables.NON_INVITE_SERVER,
        "TRYING PROCEEDING COMPLETED TERMINATED",
        "REQUEST SEND_PROVISIONAL SEND_FINAL TRYING_DELAY HANDLER_LIMIT TIMER_J TRANSPORT_ERROR",
    ),
}

machine = pytest.mark.parametrize("kind", MACHINES, ids=lambda kind: kind.__name__)


@machine
def test_every_pair_is_decided_exactly_once(kind: type[Transaction]) -> None:
    table, states, inputs = MACHINES[kind]
    assert kind.table is table
    pairs = set(itertools.product((State[name] for name in states.split()), (Input[name] for name in inputs.split())))
    assert pairs == set(table.rows) | table.ignored
    assert not set(table.rows) & table.ignored


@machine
def test_every_state_can_be_reached_and_left_and_the_last_one_is_the_end(kind: type[Transaction]) -> None:
    table = kind.table
    reached = {table.start[0]}
    while True:
        more = {there for (here, _), (there, _) in table.rows.items() if here in reached} - reached
        if not more:
            break
        reached |= more
    states = {state for state, _ in (*table.rows, *table.ignored)}
    assert reached == states
    assert {here for (here, _), (there, _) in table.rows.items() if there is not here} == states - {S.TERMINATED}


@machine
def test_a_lost_flow_ends_each_state(kind: type[Transaction]) -> None:
    states = {state for state, _ in kind.table.rows}
    assert all(kind.table.rows[state, I.TRANSPORT_ERROR][0] is S.TERMINATED for state in states)


@machine
def test_every_action_is_a_method(kind: type[Transaction]) -> None:
    names = {name for _, actions in (kind.table.start, *kind.table.rows.values()) for name in actions}
    assert all(callable(getattr(kind, name)) for name in names)


def test_no_timer_b_and_no_timer_a_once_a_provisional_response_came() -> None:
    """RFC 3261 17.1.1.2."""
    assert "stop_timers" in tables.INVITE_CLIENT.rows[S.CALLING, I.PROVISIONAL][1]


def test_a_2xx_does_not_end_an_invite_transaction() -> None:
    """RFC 6026 8.4 and 8.5."""
    for state in (S.CALLING, S.PROCEEDING):
        assert tables.INVITE_CLIENT.rows[state, I.SUCCESS] == (S.ACCEPTED, ("start_m", "pass_up"))
    assert tables.INVITE_SERVER.rows[S.PROCEEDING, I.SEND_SUCCESS] == (S.ACCEPTED, ("start_l", "send"))
    assert tables.INVITE_SERVER.rows[S.ACCEPTED, I.ACK] == (S.ACCEPTED, ("pass_ack",))


def test_only_terminated_transactions_ignore_everything() -> None:
    for table in tables.TABLES:
        assert not [here for here, _ in table.rows if here is S.TERMINATED]


def test_the_tool_draws_all_tables(capsys: pytest.CaptureFixture[str]) -> None:
    path = pathlib.Path(__file__).parents[2] / "tools" / "state_tables.py"
    tool = runpy.run_path(str(path))
    assert tool["main"]([]) == 0
    text = capsys.readouterr().out
    for table in tables.TABLES:
        assert table.title in text
    for name in tool["NAMES"]:
        assert tool["main"](["--dot", name]) == 0
        graph = capsys.readouterr().out
        table = getattr(tables, name)
        assert graph.count("->") == len(table.rows) + 1
