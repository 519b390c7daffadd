"""Both ends of calls with SIPp: who takes its calls, who calls it, and what of ours went over the wire."""

from __future__ import annotations

import concurrent.futures
import re
import threading
from collections import Counter as Tally
from collections.abc import Callable, Sequence
from typing import NamedTuple

from interop_link import OURS, THEIRS, Link
from interop_script import Script, sdp
from interop_support import LOOPBACK, PATIENCE, Sipp

from p2psip import ContentDescription, TraceEventArgs
from p2psip.session import SignalingSession

AUDIO = ContentDescription(
    "application/sdp",
    "v=0\r\no=us 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    "m=audio 6002 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n",
)
HELD = ContentDescription("application/sdp", AUDIO.body.replace(b"s=-", b"s=held") + b"a=sendonly\r\n")
TARGET = f"sip:sipp@{THEIRS}"

__all__ = [
    "AUDIO",
    "HELD",
    "OURS",
    "PATIENCE",
    "TARGET",
    "Answering",
    "Calls",
    "Sent",
    "answering",
    "at_once",
    "begin",
    "call",
    "end_of",
    "sdp",
]


class Sent:
    """A handler of ``trace`` that counts what we send, by method or by code and method."""

    def __init__(self) -> None:
        self.tally: Tally[str] = Tally()

    def __call__(self, sender: object, args: TraceEventArgs) -> None:
        if args.direction != "sent":
            return
        words = args.start_line.split(" ")
        if words[0] == "SIP/2.0":
            match = re.search(rb"\r\nCSeq: *\d+ +(\w+)", args.data)
            assert match is not None
            self.tally[f"{words[1]} {match[1].decode()}"] += 1
        else:
            self.tally[words[0]] += 1


class Calls:
    """A handler of ``session_received`` that keeps the sessions and does with each what it was given.

    Args:
        take: What to do; runs on the session's strand.
    """

    def __init__(self, take: Callable[[SignalingSession], object]) -> None:
        self._take = take
        self._news = threading.Condition()
        self.sessions: list[SignalingSession] = []
        self.errors: list[BaseException] = []
        self._done = 0

    def __call__(self, sender: object, args: object) -> None:
        session: SignalingSession = args.session  # type: ignore[attr-defined]
        with self._news:
            self.sessions.append(session)
        try:
            self._take(session)
        except Exception as error:
            self.errors.append(error)
            raise
        finally:
            with self._news:
                self._done += 1
                self._news.notify_all()

    def wait(self, count: int) -> None:
        """Wait until so many have been dealt with."""
        with self._news:
            assert self._news.wait_for(lambda: self._done >= count, PATIENCE), self._done
        assert self.errors == []


class Answering(NamedTuple):
    """SIPp as the callee, and how to reach it."""

    sipp: Sipp
    context: tuple[str, int]
    port: int


def answering(wire: Link, script: Script, *, calls: int, patience: float = PATIENCE) -> Answering:
    """SIPp that takes so many calls; its certificate is for the host of the context."""
    identity = wire.local if wire.is_secure else None
    server = wire.server("", script, identity=identity, calls=calls, patience=patience)
    return Answering(server.sipp, ("localhost" if wire.is_secure else LOOPBACK, server.port), server.port)


def call(wire: Link) -> SignalingSession:
    """A call to SIPp, yet to be placed."""
    return SignalingSession(wire.endpoint, TARGET)


def begin(wire: Link, server: Answering, session: SignalingSession) -> None:
    """Place it and wait for the answer."""
    session.establish(AUDIO, connection_context=server.context, timeout=PATIENCE)


def end_of(session: SignalingSession) -> threading.Event:
    """Set once it has ended."""
    ended = threading.Event()

    def look(sender: object, args: object) -> None:
        if session.is_terminated:
            ended.set()

    session.state_changed += look
    if session.is_terminated:
        ended.set()
    return ended


def at_once(function: Callable[[str], object], kinds: Sequence[str]) -> None:
    """Call it for each kind in a thread of its own, and wait for all."""
    with concurrent.futures.ThreadPoolExecutor(len(kinds)) as pool:
        for done in [pool.submit(function, kind) for kind in kinds]:
            done.result()
