"""A small DNS server on loopback, which answers as a test says."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

SOA = "ns.example. admin.example. 1 3600 600 86400 77"
"""The last number is how many seconds names do not exist."""


class DnsServer:
    """Answers questions over UDP, and over TCP what was too long.

    Attributes:
        records: Of a name (with a dot at the end) and kind, as in a zone file. Names without any do not exist, but for
            those that exist with another kind.
        ttl: Of all of them, in seconds.
        asked: The questions so far, as in ``records``.
        silent: Nothing is answered.
        refusal: A response code in place of every answer.
        too_long: UDP answers are cut, so that TCP is asked.
    """

    def __init__(self) -> None:
        self.records: dict[str, list[str]] = {}
        self.ttl = 120
        self.asked: list[str] = []
        self.silent = False
        self.refusal: dns.rcode.Rcode | None = None
        self.too_long = False
        self.has_soa = True
        self.over_tcp = 0
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        while True:
            self._udp.bind(("127.0.0.1", 0))
            self.port: int = self._udp.getsockname()[1]
            try:
                self._tcp = socket.create_server(("127.0.0.1", self.port))
                break
            except OSError:  # somebody has that one for TCP
                self._udp.close()
                self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._serve_udp, self._serve_tcp)]
        for thread in self._threads:
            thread.start()

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._udp.sendto(b"", self._udp.getsockname())
        with contextlib.suppress(OSError):
            socket.create_connection(self.address, 5).close()
        for thread in self._threads:
            thread.join(5)
        self._udp.close()
        self._tcp.close()

    def _serve_udp(self) -> None:
        while True:
            data, address = self._udp.recvfrom(4096)
            if not data:
                return
            answer = self._answer(data)
            if answer is not None:
                if self.too_long:
                    answer.answer = []
                    answer.flags |= dns.flags.TC
                self._udp.sendto(answer.to_wire(), address)

    def _serve_tcp(self) -> None:
        while True:
            connection, _ = self._tcp.accept()
            with connection:
                connection.settimeout(5)
                length = connection.recv(2)
                if not length:
                    return
                answer = self._answer(connection.recv(int.from_bytes(length, "big")))
                self.over_tcp += 1
                if answer is not None:
                    wire = answer.to_wire()
                    connection.sendall(len(wire).to_bytes(2, "big") + wire)

    def _answer(self, data: bytes) -> dns.message.Message | None:
        question = dns.message.from_wire(data)
        name, kind = question.question[0].name, question.question[0].rdtype
        self.asked.append(f"{name} {kind.name}".lower().replace(kind.name.lower(), kind.name))
        if self.silent:
            return None
        answer = dns.message.make_response(question)
        answer.flags |= dns.flags.RA
        if self.refusal is not None:
            answer.set_rcode(self.refusal)
            return answer
        found = self.records.get(f"{name} {kind.name}".replace(str(name), str(name).lower()))
        if found:
            answer.answer.append(dns.rrset.from_text(name, self.ttl, "IN", kind, *found))
        else:
            if not any(key.partition(" ")[0] == str(name).lower() for key in self.records):
                answer.set_rcode(dns.rcode.NXDOMAIN)
            if self.has_soa:
                zone = dns.name.from_text("example.")
                answer.authority.append(dns.rrset.from_text(zone, 3600, "IN", "SOA", SOA))
        return answer


@contextlib.contextmanager
def dns_server() -> Iterator[DnsServer]:
    server = DnsServer()
    try:
        yield server
    finally:
        server.close()
