"""What the library logs: no floods, nothing that a peer has forged, no secrets."""

from __future__ import annotations

import ast
import logging
import os
import queue
import re
import signal
import string
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2psip import logs
from p2psip.logs import LINES_PER_SECOND, LONGEST, Log, clean

PACKAGE = Path(__file__).resolve().parent.parent / "p2psip"
KIND = "A connection from %s failed: %s"
SHOWN = "A connection from ... failed: ..."


class Lines(logging.Handler):
    """Writes down each record as a usual handler would show it."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
        self.lines: list[str] = []
        self.records: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))
        self.records.put(record)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler = Lines()
    logger = logging.getLogger("p2psip.test_logs")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    yield handler
    logger.removeHandler(handler)


@pytest.fixture
def log(clock: Clock, lines: Lines) -> Iterator[Log]:
    made = Log("p2psip.test_logs", clock)
    yield made
    logs._logs.remove(made)


# ---------------------------------------------------------------------- floods


@pytest.mark.holds("R44")
def test_of_one_kind_come_ten_lines_in_any_second(log: Log, clock: Clock, lines: Lines) -> None:
    written: list[float] = []
    for step in range(1000):  # 50 a second, 20 seconds
        before = len(lines.lines)
        log.warning(KIND, "192.0.2.1", step)
        if any("failed" in line and "left out" not in line for line in lines.lines[before:]):
            written.append(clock.now)
        clock.now += 0.02
    assert all(later - earlier >= 1.0 for earlier, later in zip(written, written[LINES_PER_SECOND:], strict=False))
    assert 190 <= len(written) <= 200


@pytest.mark.holds("R44")
def test_how_many_were_left_out_is_said_with_the_next_line(log: Log, clock: Clock, lines: Lines) -> None:
    for number in range(17):
        log.warning(KIND, "192.0.2.1", number)
    assert len(lines.lines) == 10
    clock.now += 1.0
    log.warning(KIND, "192.0.2.1", 17)
    assert lines.lines[10:] == [
        f"WARNING 7 more like this were left out: {SHOWN}",
        "WARNING A connection from 192.0.2.1 failed: 17",
    ]


def test_how_many_were_left_out_is_said_without_a_next_line(
    log: Log, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "PAUSE", 0.01)
    for number in range(12):
        log.warning(KIND, "192.0.2.1", number)
    for _ in range(10):
        lines.records.get(timeout=10)
    assert lines.records.get(timeout=10).getMessage() == f"2 more like this were left out: {SHOWN}"
    log.tell_left_out()
    assert len(lines.lines) == 11  # it is said once


def test_other_kinds_are_not_affected(log: Log, lines: Lines) -> None:
    for number in range(20):
        log.warning(KIND, "192.0.2.1", number)
        log.info("Something else: %d", number)
    assert len(lines.lines) == 20


def test_what_nobody_wants_to_see_is_not_counted(log: Log, lines: Lines) -> None:
    logging.getLogger("p2psip.test_logs").setLevel(logging.ERROR)
    for _ in range(50):
        log.warning(KIND, "192.0.2.1", 1)
    log.tell_left_out()
    assert lines.lines == []


def test_a_record_says_where_it_comes_from(log: Log, lines: Lines) -> None:
    log.warning(KIND, "192.0.2.1", 1)
    record = lines.records.get(timeout=1)
    assert (record.filename, record.funcName) == ("test_logs.py", "test_a_record_says_where_it_comes_from")
    assert (record.msg, record.name) == (KIND, "p2psip.test_logs")  # which tools group them by


# ---------------------------------------------------------------------- forgeries


FORGERIES = [
    "1\r\nCRITICAL root: all is lost",
    "\x1b]0;title\x07\x1b[2J",
    "\x00\x7f\x9b31m",
    "\u2028\u202eover",
    "\udcff\udc80",
    b"\xff\xfe\r\n\x1b[31m",
]


@pytest.mark.holds("R44")
@pytest.mark.parametrize("text", FORGERIES, ids=ascii)
def test_a_peer_writes_no_line_of_its_own(text: str | bytes, log: Log, lines: Lines) -> None:
    log.warning(KIND, text, text)
    (line,) = lines.lines
    assert line.isprintable()
    line.encode("utf-8")


@pytest.mark.holds("R44")
@given(st.one_of(st.text(), st.binary()))
def test_whatever_it_is_it_becomes_printable_and_short(value: str | bytes) -> None:
    assert clean(value).isprintable()
    assert len(clean(value)) <= LONGEST + 3


def test_what_is_long_is_cut(log: Log, lines: Lines) -> None:
    log.warning(KIND, "x" * 100_000, b"y" * 100_000)
    assert len(lines.lines[0]) < 2 * LONGEST + 60


@pytest.mark.holds("R44")
def test_sentences_of_exceptions_are_cleaned_in_tracebacks_as_well(log: Log, lines: Lines) -> None:
    try:
        try:
            raise ValueError("inner\nERROR root: forged \x1b[31m")
        except ValueError as error:
            raise RuntimeError("outer\r\nERROR root: forged, too" + "z" * 5000) from error
    except RuntimeError:
        log.exception("%s failed.", "Something")
    (shown,) = lines.lines
    assert all(line.isprintable() for line in shown.split("\n"))
    assert not re.search(r"^ERROR root", shown, re.MULTILINE)
    assert "ValueError: inner\\nERROR root" in shown
    assert "direct cause" in shown
    assert "test_logs.py" in shown
    assert len(shown) < 4000


def test_exceptions_in_a_circle_end(log: Log, lines: Lines) -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    log.error("It failed.", exc_info=one)
    assert lines.lines[0].count("ValueError") == 2


class Unshowable:
    def __str__(self) -> str:
        raise OSError("no")


def test_what_cannot_be_shown_is_named(log: Log, lines: Lines) -> None:
    log.warning(KIND, Unshowable(), 1)
    assert "<Unshowable that cannot be shown: OSError>" in lines.lines[0]


# ---------------------------------------------------------------------- secrets


SECRETS = [
    b'MESSAGE sip:b SIP/2.0\r\nAuthorization: Digest username="u", response="hunter2"\r\nX: y\r\n\r\n',
    'Proxy-Authorization: Digest hunter2,\r\n\tcnonce="hunter2"\r\nX: y',
    'Authentication-Info: rspauth="hunter2"',
    'the value response="hunter2" is wrong',
    "response=hunter2, uri",
    'rspauth="hunter2',
    "password: hunter2",
    "password='hunter2'",
    "sip:alice:hunter2@example.com is not a SIP URI",
    "-----BEGIN EC PRIVATE KEY-----\nhunter2\n-----END EC PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\nhunter2",
]


@pytest.mark.holds("R16")
@pytest.mark.parametrize("text", SECRETS, ids=ascii)
def test_no_secret_gets_into_a_line(text: str | bytes, log: Log, lines: Lines) -> None:
    log.warning(KIND, text, ValueError(text))
    try:
        raise ValueError(text)
    except ValueError:
        log.exception("It failed.")
    assert "hunter2" not in "".join(lines.lines)
    assert "***" in lines.lines[0]


def test_what_is_no_secret_stays() -> None:
    for text in (
        "sip:alice@example.com:5061",
        "the response was 200",
        "a password is missing",
        "sips:b@[::1]:5061;x=1",
    ):
        assert clean(text) == text


# ---------------------------------------------------------------------- everywhere


def test_every_module_logs_in_this_way() -> None:
    """No other loggers, and formats that are literals: else there would be kinds without end, and texts uncleaned."""
    calls = 0
    for path in sorted(PACKAGE.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        assert "import logging" not in source or path.name == "logs.py" or path.parent.name == "cli", path
        if "_log." not in source:
            continue
        for node in ast.walk(ast.parse(source)):
            if not isinstance(node, ast.Call) or not ast.unparse(node.func).startswith("_log."):
                continue
            calls += 1
            kind = node.args[0]
            assert isinstance(kind, ast.Constant) and isinstance(kind.value, str), ast.unparse(node)
            if not any(isinstance(argument, ast.Starred) for argument in node.args):
                assert len(re.findall(r"%[sdgr.]", kind.value)) == len(node.args) - 1, ast.unparse(node)
    assert calls > 20


def test_the_child_of_a_fork_can_log(log: Log, lines: Lines) -> None:
    if not hasattr(os, "fork"):
        pytest.skip("this system has no fork")
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with log._lock:
            held.set()
            release.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(10)
    child = os.fork()
    if not child:
        signal.alarm(10)  # a dead-lock is a failure
        log.warning(KIND, "child", 1)
        os._exit(0 if any("child" in line for line in lines.lines) else 1)
    release.set()
    holder.join()
    assert os.waitpid(child, 0)[1] == 0


def test_all_printable_text_stays_as_it_is() -> None:
    text = string.ascii_letters + string.digits + " äöü€"
    assert clean(text) == text
