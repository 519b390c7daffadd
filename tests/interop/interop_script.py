"""Scenarios of calls for SIPp, written step by step: ``caller`` begins a dialog, ``callee`` takes one.

A :class:`Script` is turned into SIPp's XML. Words in capitals between ``@`` are filled in by :class:`Sipp`.
"""

from __future__ import annotations

SDP = """Content-Type: application/sdp
      Content-Length: [len]

      v=0
      o=sipp 5365 {version} IN IP4 [local_ip]
      s=-
      c=IN IP4 [local_ip]
      t=0 0
      m=audio 6000 RTP/AVP 0
      a=rtpmap:0 PCMU/8000
      a={direction}"""
EMPTY = "Content-Length: 0\n"

_VIA = "Via: SIP/2.0/@TRANSPORT@ [local_ip]:[local_port];branch={branch};rport"
_CONTACT = "Contact: <sip:sipp@@CONTACT@;transport=@TRANSPORT@>"
_KEEP = """    <action>
      <ereg regexp="((Via|v) *:[^[:cntrl:]]*[[:cntrl:]]+)+" search_in="msg" assign_to="via,via1,via2"/>
      <ereg regexp=".*" search_in="hdr" header="From:" assign_to="remote"/>
      <ereg regexp=".*" search_in="hdr" header="To:" assign_to="local"/>
      <ereg regexp=".*" search_in="hdr" header="CSeq:" assign_to="cseq"/>
    </action>
"""


def sdp(direction: str = "sendrecv", version: int = 1) -> str:
    """A description of audio, with its Content-Type and -Length."""
    return SDP.format(direction=direction, version=version)


class Script:
    """A scenario in the making; each method adds a step and returns the script.

    Args:
        name: Its name.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._steps: list[str] = []
        self._cseq = 0
        self._is_callee = False
        self._invite = self._invite_at = 0
        self._count = 0  # of steps, which SIPp's branches are told by
        self._last = ""

    @property
    def xml(self) -> str:
        """The whole."""
        head = f'<?xml version="1.0" encoding="UTF-8"?>\n<scenario name="{self.name}">\n'
        if self._is_callee:
            names = "via,via1,via2,remote,local,cseq"
            self._steps.append(f'  <Reference variables="{names}"/>\n')
        return head + "".join(self._steps) + "</scenario>\n"

    def _send(self, lines: list[str]) -> Script:
        self._count += 1
        text = "\n      ".join(line for line in lines if line)
        self._steps.append(f"  <send>\n    <![CDATA[\n      {text}\n    ]]>\n  </send>\n")
        return self

    def request(self, method: str, *headers: str, body: str = EMPTY, cseq: int | None = None) -> Script:
        """Send a request: the first one begins the dialog, what follows is within it."""
        if self._is_callee:
            uri, sender, receiver = "[next_url]", "From:[$local];tag=[pid]s[call_number]", "To:[$remote]"
        else:
            uri, sender, receiver = (
                "[next_url]",
                "From: <@FROM@>;tag=[pid]-[call_number]",
                "To: <@URI@>[peer_tag_param]",
            )
            if not self._cseq:
                uri, receiver = "@URI@", "To: <@URI@>"
        self._last = method
        if cseq is None:
            self._cseq += 1
            cseq = self._cseq
            if method == "INVITE":
                self._invite, self._invite_at = cseq, self._count
        contact = _CONTACT if method in ("INVITE", "UPDATE", "REFER", "SUBSCRIBE", "NOTIFY") else ""
        lines = [f"{method} {uri} SIP/2.0", _VIA.format(branch="[branch]"), sender, receiver, "Call-ID: [call_id]"]
        return self._send([*lines, f"CSeq: {cseq} {method}", contact, "Max-Forwards: 70", *headers, body])

    def ack(self) -> Script:
        """ACK of a 2xx."""
        return self.request("ACK", cseq=self._invite)

    def cancel(self) -> Script:
        """CANCEL of the INVITE, whose branch it has."""
        self._last = "CANCEL"
        lines = [
            "CANCEL @URI@ SIP/2.0",
            _VIA.format(branch=self._same_branch()),
            "From: <@FROM@>;tag=[pid]-[call_number]",
        ]
        lines += ["To: <@URI@>", "Call-ID: [call_id]", f"CSeq: {self._invite} CANCEL", "Max-Forwards: 70", EMPTY]
        return self._send(lines)

    def _same_branch(self) -> str:
        return f"[branch-{self._count - self._invite_at}]"

    def ack_failure(self) -> Script:
        """ACK of 300 to 699, with the branch of the INVITE."""
        lines = [
            "ACK @URI@ SIP/2.0",
            _VIA.format(branch=self._same_branch()),
            "From: <@FROM@>;tag=[pid]-[call_number]",
            "[last_To:]",
        ]
        lines += ["Call-ID: [call_id]", f"CSeq: {self._invite} ACK", "Max-Forwards: 70", EMPTY]
        return self._send(lines)

    def wants(self, code: int, *, optional: bool = False, contains: tuple[str, str] | None = None) -> Script:
        """Receive a response."""
        options = ' optional="true"' if optional else ""
        if self._last in ("INVITE", "SUBSCRIBE") and 100 < code < 300:  # it has a Contact
            options += ' rrs="true"'
        return self._receive(f'response="{code}"{options}', contains)

    def receives(self, method: str, *, contains: tuple[str, str] | None = None) -> Script:
        """Receive a request; the first of the scenario makes this side the callee."""
        if not self._steps:
            self._count += 1
            self._is_callee = True
            self._steps.append(f'  <recv request="{method}" rrs="true">\n{_KEEP}  </recv>\n')
            return self
        return self._receive(f'request="{method}"', contains)

    def _receive(self, what: str, contains: tuple[str, str] | None) -> Script:
        self._count += 1
        if contains is None:
            self._steps.append(f"  <recv {what}/>\n")
            return self
        header, pattern = contains
        if header == "RSeq":
            name, groups = "all_of_rseq", ",rseq"
        else:
            name, groups = f"seen{len(self._steps)}", ""
        where = f'search_in="hdr" header="{header}:"' if header else 'search_in="body"'
        action = f'<ereg regexp="{pattern}" {where} check_it="true" assign_to="{name}{groups}"/>'
        self._steps.append(f"  <recv {what}>\n    <action>{action}</action>\n  </recv>\n")
        self._steps.append(f'  <Reference variables="{name}"/>\n')
        return self

    def answers(self, code: int, *headers: str, body: str = EMPTY, reason: str = "As Asked") -> Script:
        """Answer the request that came last."""
        lines = [f"SIP/2.0 {code} {reason}", "[last_Via:]", "[last_From:]", "[last_To:]", "[last_Call-ID:]"]
        contact = "" if any(header.startswith("Contact:") for header in headers) else _CONTACT
        return self._send([*lines, "[last_CSeq:]", contact, *headers, body])

    def answers_first(self, code: int, *headers: str, body: str = EMPTY, reason: str = "As Asked") -> Script:
        """Answer the request that began the dialog, whatever has come since."""
        lines = [f"SIP/2.0 {code} {reason}", "[$via]", "From:[$remote]", "To:[$local];tag=[pid]s[call_number]"]
        contact = "" if any(header.startswith("Contact:") for header in headers) else _CONTACT
        return self._send([*lines, "Call-ID: [call_id]", "CSeq:[$cseq]", contact, *headers, body])

    def pauses(self, milliseconds: int) -> Script:
        """Wait."""
        self._count += 1
        self._steps.append(f'  <pause milliseconds="{milliseconds}"/>\n')
        return self


def caller(name: str, *headers: str, body: str | None = None) -> Script:
    """Begins a call."""
    return Script(name).request("INVITE", *headers, body=sdp() if body is None else body)


def callee(name: str, method: str = "INVITE") -> Script:
    """Waits for one."""
    return Script(name).receives(method)
