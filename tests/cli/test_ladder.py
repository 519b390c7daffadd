"""The ladder diagram."""

from __future__ import annotations

import pytest

from p2psip.cli.ladder import MARGIN, Arrow, Link, Party, draw

ALICE = Party("Alice", ("127.0.0.1:40001",))
BOB = Party("Bob", ("127.0.0.1:40002",))

STEPS = [
    Link(True, "TLSv1.3, TLS_AES_256_GCM_SHA384", ("Bob proved to be bob.example.",), time="0.0 ms"),
    Arrow(True, "MESSAGE sip:bob@bob.example", ('"Hello"',), "A text for Bob.", time="2.1 ms"),
    Arrow(False, "200 OK", (), "Bob has it.", time="2.9 ms"),
]


def test_the_whole_picture() -> None:
    assert draw(ALICE, BOB, STEPS, width=70) == [
        "           Alice                                                   Bob",
        "           127.0.0.1:40001                             127.0.0.1:40002",
        "           |                                                         |",
        "    0.0 ms |=========== TLSv1.3, TLS_AES_256_GCM_SHA384 ============>|",
        "           |  Bob proved to be bob.example.                          |",
        "           |                                                         |",
        "    2.1 ms |  MESSAGE sip:bob@bob.example                            |",
        '           |  "Hello"                                                |',
        "           |-------------------------------------------------------->|",
        "           |  A text for Bob.                                        |",
        "           |                                                         |",
        "    2.9 ms |                                                 200 OK  |",
        "           |<--------------------------------------------------------|",
        "           |                                            Bob has it.  |",
        "           |                                                         |",
    ]


@pytest.mark.parametrize("width", [60, 78, 120])
def test_every_line_fits_and_both_lines_are_straight(width: int) -> None:
    long = "word " * 60 + "x" * 300
    steps = [*STEPS, Arrow(True, long, (long,), long), Arrow(False, long), Link(False, long, (long,))]
    lines = draw(ALICE, BOB, steps, width=width)
    assert {len(line) for line in lines[2:]} == {width}
    assert {(line[MARGIN], line[-1]) for line in lines[2:]} == {("|", "|")}


def test_a_narrow_terminal_gets_the_smallest_diagram() -> None:
    assert draw(ALICE, BOB, STEPS, width=20) == draw(ALICE, BOB, STEPS, width=60)


def test_a_connection_opened_by_the_second_party_points_left() -> None:
    line = draw(ALICE, BOB, [Link(False, "TLSv1.2, X")], width=60)[3]
    assert line.strip().startswith("|<==") and line.endswith("==|")
