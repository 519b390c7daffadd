"""What RFCs print of flows, in few words: one entry for each message.

An entry has: label and start line; the dialog, who sends the request, its number in CSeq, a dash where To has no tag; the
branches of Via, the topmost first; and the other headers that say anything. Max-Forwards follows from the hops.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from p2psip.message import reason_phrase

Dialogs = Mapping[str, tuple[str, Mapping[str, tuple[str, str]]]]
"""For each: its Call-ID, and the name and the tag of each of the two."""


@dataclasses.dataclass(frozen=True)
class Network:
    """Who takes part in the flows of one RFC.

    Attributes:
        hosts: The machine of each letter.
        users: Whose letter is whose.
        addresses: What is in ``c=`` of who has that letter; else the host.
        subject: What is in ``s=``.
        more: The headers that every INVITE and each 2xx to it has, where any.
    """

    scheme: str
    transport: str
    port: int
    hosts: Mapping[str, str]
    users: Mapping[str, str]
    addresses: Mapping[str, str] = dataclasses.field(default_factory=dict)
    subject: str = ""
    more: str = ""

    def messages(self, dialogs: Dialogs, contacts: Mapping[str, str], entries: str) -> dict[str, bytes]:
        """``contacts``: of those who have another one than their user and host."""
        messages: dict[str, bytes] = {}
        for entry in re.split(r"\n(?=F\d)", entries.strip()):
            start, dialog, vias, *rest = (part.strip() for part in entry.split("|"))
            label, method, *uri = start.split()
            key, sender, number, *asked = dialog.split()
            call_id, people = dialogs[key]
            (receiver,) = set(people) - {sender[0]}
            is_request = not method.isdigit()
            headers = [f"Via: SIP/2.0/{self.transport} {self._via(via)}" for via in vias.split()]
            if is_request:
                headers.append(f"Max-Forwards: {71 - len(headers)}")
            name, tag = people[sender[0]]
            headers.append(f"From: {name};tag={tag}")
            name, tag = people[receiver]
            headers.append(f"To: {name}" + ("" if sender.endswith("-") else f";tag={tag}"))
            headers += [f"Call-ID: {call_id}", f"CSeq: {number} {asked[0] if asked else method}"]
            body = ""
            for word in " ".join(rest).split():
                name, _, value = word.partition("=")
                if name == "sdp":
                    headers += [*([self.more] if self.more else []), "Content-Type: application/sdp"]
                    body = self._description(*value.split("/"))
                elif name == "fragment":
                    headers.append("Content-Type: message/sipfrag")
                    of = (
                        messages[value].decode()
                        if value in messages
                        else f"SIP/2.0 {value} {reason_phrase(int(value))}"
                    )
                    body = of.partition("\r\nAllow")[0] + "\r\n"
                else:
                    headers.append(self._header(name, value, contacts))
            first = f"{method} {uri[0]} SIP/2.0" if is_request else f"SIP/2.0 {method} {reason_phrase(int(method))}"
            messages[label] = "\r\n".join([first, *headers, f"Content-Length: {len(body)}", "", body]).encode()
        return messages

    def _via(self, text: str) -> str:
        host, branch = text.split(":")
        return f"{self.hosts[host]}:{self.port};branch=z9hG4bK{branch}"

    def _header(self, name: str, value: str, contacts: Mapping[str, str]) -> str:
        if name == "c":
            user = next(user for user, owner in self.users.items() if owner == value)
            return f"Contact: {contacts.get(value) or f'<{self.scheme}:{user}@{self.hosts[value]}>'}"
        if name in ("Route", "Record-Route"):
            return f"{name}: " + ", ".join(f"<{self.scheme}:{self.hosts[hop]};lr>" for hop in value.split(","))
        if name == "active":
            return f"Event: refer\r\nSubscription-State: active;expires={value}"
        if name == "terminated":
            return f"Event: refer\r\nSubscription-State: terminated;reason={value}"
        if name == "challenge":
            realm, nonce = value.split("/")
            challenge = f'Digest realm="{realm}", qop="auth", nonce="{nonce}", opaque="", stale=FALSE, algorithm=MD5'
            return f"Proxy-Authenticate: {challenge}"
        return f"{name}: {value}"

    def _description(self, user: str, session: str, version: str, port: str, direction: str = "") -> str:
        owner = self.users[user]
        host = self.hosts[owner]
        lines = ["v=0", f"o={user} {session} {version} IN IP4 {host}", f"s={self.subject}"]
        lines += [f"c=IN IP4 {self.addresses.get(owner, host)}", "t=0 0", f"m=audio {port} RTP/AVP 0"]
        lines += ["a=rtpmap:0 PCMU/8000", *([f"a={direction}"] if direction else [])]
        return "\r\n".join(lines) + "\r\n"
