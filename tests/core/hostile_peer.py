"""A peer that says anything at any time.

It knows all that it was sent, and uses it: it answers our requests with matching and with nearly matching branches, tags
and numbers, in any order and as often as it likes, and sends requests into our dialogs.
"""

from __future__ import annotations

from typing import NamedTuple

from hostile_application import THEM
from hostile_headers import BODIES, EXTRAS, PIECES
from hostile_steps import Ask, Mangle, Reply

from p2psip.core.digest import challenges_of, credentials_text, secret_of
from p2psip.errors import MessageParsingException
from p2psip.message import Limits, Request, Response, parse_message

BOUNDLESS = Limits(start_line=2**24, header=2**24, head=2**24, headers=2**24, values=2**24, body=2**24)
"""An answer may be longer than what we take: it gives back what it was sent."""


class Line(NamedTuple):
    """A dialog as the peer knows it, or the beginning of one."""

    call_id: str
    ours: str | None
    theirs: str | None


class Peer:
    """What it has heard of us and has said, and what it says next.

    Attributes:
        ours: Our requests, but for ACKs.
        all_of_ours: Everything that we have sent.
        theirs: Everything that it has said.
        lines: The dialogs that it knows of.
        mangle: How the next message is to be spoiled.
    """

    def __init__(self) -> None:
        self.ours: list[Request] = []
        self.all_of_ours: list[bytes] = []
        self.theirs: list[bytes] = []
        self.lines: list[Line] = []
        self.mangle: Mangle | None = None
        self._branch = self._invite_branch = "z9hG4bK-them"
        self._number = self._invite_number = 1
        self._count = 0
        self._asking = ""
        self._proofs = 0

    def hear(self, octets: bytes, message: Request | Response) -> None:
        """We have sent that."""
        self.all_of_ours.append(octets)
        try:
            if isinstance(message, Request):
                if message.method != "ACK":
                    self.ours.append(message)
                line = Line(message.call_id or "", message.from_tag, message.to_tag)
            elif message.status_code < 300:
                line = Line(message.call_id or "", message.to_tag, message.from_tag)
            else:
                return
        except MessageParsingException:
            return  # the answer to something that could not be read
        if line.ours is not None and line not in self.lines:
            self.lines.append(line)

    def spoil(self, octets: bytes) -> bytes:
        """What is really said of a message."""
        mangle, self.mangle = self.mangle, None
        if mangle is not None:
            at = len(octets) * mangle.place // 256
            octets = octets[:at] + PIECES[mangle.piece] + octets[at + mangle.length :]
        self.theirs.append(octets)
        return octets

    def request(self, step: Ask) -> bytes:
        """One of its own, as the step says."""
        line = self._line(step.call)
        self._count += 1
        self._asking = step.method
        self._branch = {
            "new": f"z9hG4bK-them{self._count}",
            "last": self._branch,
            "invite": self._invite_branch,
            "ours": (self.ours[-1].top_branch or "") if self.ours else "z9hG4bK",
            "none": "",
            "old": "1",
        }[step.branch]
        number = {
            "next": self._number + 1,
            "same": self._number,
            "invite": self._invite_number,
            "lower": max(0, self._number - 1),
            "higher": self._number + 1000,
            "highest": 2**31 - 1,
        }[step.number]
        if step.number in ("next", "higher"):
            self._number = number
        if step.method == "INVITE":
            self._invite_branch, self._invite_number = self._branch, number
        uri = "sip:us@us.example:5061;transport=tls" if step.uri == "ours" else step.uri
        via = "SIP/2.0/TLS them.example:5061" + (f";branch={self._branch}" if self._branch else "")
        lines = [
            f"{step.method} {uri} SIP/2.0",
            f"Via: {via}",
            "Max-Forwards: 70",
            f"From: <{THEM}>{self._tag(step.from_tag, line.theirs or 'them', line)}",
            f"To: <sip:us@us.example>{self._tag(step.to_tag, line.ours, line)}",
            f"Call-ID: {line.call_id}",
            f"CSeq: {number} {step.method}",
        ]
        return self._complete(lines, step)

    def response(self, step: Reply) -> bytes:
        """The answer to one of ours, as the step says."""
        request = self.ours[-1 - step.which % len(self.ours)]
        line = Line(request.call_id or "", request.from_tag, request.to_tag or "them")
        via = request.headers.get("Via") or ""
        if step.branch != "new":
            branch = {"last": self._branch, "invite": self._invite_branch, "ours": self.ours[-1].top_branch}
            via = f"{via.partition(';')[0]};branch={branch.get(step.branch) or 'z9hG4bK'}"
        number = {"next": 0, "same": 0, "invite": -1, "lower": -1}.get(step.number, 1) + request.cseq.number
        lines = [
            f"SIP/2.0 {step.code} Reason",
            f"Via: {via}",
            f"From: {request.headers.get('From')}",
            f"To: {(request.headers.get('To') or '').partition(';tag=')[0]}{self._tag(step.to_tag, line.theirs, line)}",
            f"Call-ID: {line.call_id}",
            f"CSeq: {number} {request.method}",
        ]
        return self._complete(lines, step)

    def _line(self, call: int) -> Line:
        if call == 0 or not self.lines:
            self._count += 1
            return Line(f"call{self._count}@them.example", None, None)
        return self.lines[-1 - (call - 1) % len(self.lines)]

    def _tag(self, kind: str, right: str | None, line: Line) -> str:
        if kind == "other":
            return ";tag=other"
        if kind == "swapped":
            right = line.ours if right == line.theirs else line.theirs
        if kind == "strange":
            return ';tag="a";x="\\"\\\\"'
        return "" if kind == "none" or right is None else f";tag={right}"

    def _complete(self, lines: list[str], step: Ask | Reply) -> bytes:
        names = set()
        for index in dict.fromkeys((step.first, step.second, step.third)):
            for name, value in EXTRAS[index]:
                lines.append(f"{name}: {self._filled_in(value)}")
                names.add(name)
        content_type, body = BODIES[step.body]
        if body and "Content-Type" not in names:
            lines.append(f"Content-Type: {content_type}")
        lines.append(f"Content-Length: {len(body)}\r\n\r\n")
        return "\r\n".join(lines).encode("utf-8", "surrogateescape") + body

    def _filled_in(self, value: str) -> str:
        """What stands in braces is what the peer has learned from us."""
        if "{" not in value:
            return value
        last = self.ours[-1] if self.ours else None
        line = self.lines[-1] if self.lines else Line("c", "o", "t")
        known = {
            "{event}": last and last.headers.get("Event"),
            "{number}": str(last.cseq.number if last else 1),
            "{branch}": last and last.top_branch,
            "{rack}": f"{self._last_rseq()} {self._invite_number} INVITE",
            "{call}": line.call_id,
            "{ours}": line.ours,
            "{theirs}": line.theirs,
            "{proof}": self._proof(),
        }
        for name, text in known.items():
            value = value.replace(name, text or "x")
        return value

    def _proof(self) -> str | None:
        """What answers our last challenge, if there was one."""
        for octets in reversed(self.all_of_ours):
            asked = parse_message(octets, BOUNDLESS).headers.get("WWW-Authenticate")
            if asked is not None:
                (challenge,) = challenges_of([asked])
                secret = secret_of(challenge.algorithm, "them", challenge.realm, "secret")
                self._proofs += 1
                return credentials_text(
                    challenge,
                    "them",
                    secret,
                    method=self._asking,
                    uri="sip:us@us.example",
                    body=b"",
                    nc=self._proofs,
                    cnonce="c",
                )
        return None

    def _last_rseq(self) -> int:
        for octets in reversed(self.all_of_ours):
            if b"\r\nRSeq: " in octets:
                return int(octets.partition(b"\r\nRSeq: ")[2].partition(b"\r\n")[0])
        return 1
