"""Remembers what a connection manager sends and receives, and draws a ladder of each call or subscription."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from typing import Any

from p2psip import MessageParsingException, RealTimeConnectionManager, TraceEventArgs
from p2psip.cli import console, ladder
from p2psip.message import Request, Response, parse_message

_MOST = 2000
"""Messages that are remembered; a ladder of more is of no use."""
_TOLD = ("Refer-To", "Referred-By", "Replaces", "Reason", "Event", "Subscription-State", "Contact")
_SIPFRAG = "message/sipfrag"


class Record:
    """The messages of one connection manager.

    Args:
        manager: Whose.
    """

    def __init__(self, manager: RealTimeConnectionManager) -> None:
        self._messages: list[TraceEventArgs] = []
        self.lost = 0
        manager.trace += self._traced

    def _traced(self, sender: RealTimeConnectionManager, args: TraceEventArgs) -> None:
        if len(self._messages) < _MOST:
            self._messages.append(args)
        else:
            self.lost += 1

    def show(self, *, json: bool) -> None:
        """Draw them, one ladder for each Call-ID; as JSON one object for each. Best once the manager is gone."""
        messages = sorted(self._messages, key=lambda args: args.time)
        calls: dict[str, list[tuple[TraceEventArgs, Request | Response]]] = {}
        for args in messages:
            try:
                message = parse_message(args.data)
            except MessageParsingException:
                continue
            calls.setdefault(message.headers.get("Call-ID") or "", []).append((args, message))
        begin = messages[0].time if messages else 0.0
        for call_id, steps in calls.items():
            if json:
                console.say_json({"event": "ladder", "call_id": call_id, "messages": list(_as_json(steps, begin))})
            else:
                console.say()
                console.say("\n".join(_draw(steps, begin)))
        if self.lost and not json:
            console.say(f"({self.lost} further messages are not shown.)")


def _draw(steps: list[tuple[TraceEventArgs, Request | Response]], begin: float) -> list[str]:
    args, first = steps[0]
    ours, theirs = ("From", "To") if args.direction == "sent" == _way(first) else ("To", "From")
    columns = max(min(shutil.get_terminal_size((78, 24)).columns, 100), ladder.SMALLEST)
    left = ladder.Party("We", (_uri(first, ours), console.endpoint(args.connection.local_endpoint)))
    right = ladder.Party("Peer", (_uri(first, theirs), console.endpoint(args.connection.remote_endpoint)))
    arrows = [
        ladder.Arrow(args.direction == "sent", _label(message), _details(message), "", _when(args, begin))
        for args, message in steps
    ]
    return ladder.draw(left, right, arrows, width=columns)


def _way(message: Request | Response) -> str:
    return "sent" if isinstance(message, Request) else "received"


def _uri(message: Request | Response, name: str) -> str:
    try:
        return console.printable(str((message.from_ if name == "From" else message.to).uri))
    except MessageParsingException:
        return "?"


def _when(args: TraceEventArgs, begin: float) -> str:
    return console.milliseconds(max(args.time - begin, 0.0))


def _label(message: Request | Response) -> str:
    if isinstance(message, Request):
        return console.printable(f"{message.method} {message.uri}")
    method = (message.headers.get("CSeq") or "").rpartition(" ")[2]
    return console.printable(f"{message.status_code} {message.reason} ({method})")


def _details(message: Request | Response) -> tuple[str, ...]:
    told = _TOLD[:-1] if isinstance(message, Request) or not 300 <= message.status_code < 400 else _TOLD
    lines = [f"{name}: {value}" for name in told if (value := message.headers.get(name))]
    if message.body:
        kind = message.headers.get("Content-Type") or "body"
        if kind.lower().startswith(_SIPFRAG):
            lines.append(message.body.split(b"\r\n")[0].decode("utf-8", "backslashreplace"))
        else:
            lines.append(f"({kind}, {len(message.body)} bytes)")
    return tuple(map(console.printable, lines))


def _as_json(steps: Iterable[tuple[TraceEventArgs, Request | Response]], begin: float) -> Iterable[dict[str, Any]]:
    for args, message in steps:
        yield {
            "direction": args.direction,
            "milliseconds": round(1000 * (args.time - begin), 3),
            "message": _label(message),
            "details": list(_details(message)),
            "remote": console.endpoint(args.connection.remote_endpoint),
        }
