"""What the library owes whoever leaves it running on the open internet, a sentence each; which test holds what.

R are requirements, F faults that it survives, A advisories about other SIP stacks whose mistake it must not repeat.
A test says what it holds by ``@pytest.mark.holds("R5", "A12")``; ``python tools/requirements.py`` prints the table.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).resolve().parent

SENTENCES = {
    # ---------------------------------------------------------------- TLS
    "R1": "Every context states TLS 1.2 and 1.3 only, forward secret AEAD suites, no compression, no renegotiation.",
    "R2": "Under mutual TLS no SIP byte is processed or answered before handshake and identity check are over.",
    "R3": "Outgoing TLS always verifies chain and identity; nothing that switches this off is on by default.",
    "R4": "Names match whole: no wildcard, no suffix, no CN by default, sip URIs before DNS, 1000 names at most.",
    "R5": "Each TLS failure has one reason, code and cause, in both roles and both versions.",
    "R6": "A TLS 1.3 refusal that comes late fails each waiting request with TlsFailureException within a second.",
    "R7": "Handshake and connect each end after 10 seconds in all, also for a peer that sends byte by byte.",
    "R8": "Nobody gets in by a resumed session whose certificate would be refused today.",
    "R9": "A connection whose peer's certificate has expired or been revoked meanwhile ends within 60 seconds.",
    "R10": "A connection serves a request only if transport, address, port and verified identity fit.",
    "R11": "What is meant for a sips: target never leaves over TCP, wherever that came from.",
    "R12": "TLS objects belong to one thread; a context is not changed once it is in use.",
    "R13": "No plaintext byte ever leaves a TLS connection.",
    # ---------------------------------------------------------------- the local certificate
    "R14": "Issuers match in every notation and order, serial numbers as bytes, int and hex; ambiguity names both.",
    "R15": "We never put a private key on the disk unencrypted, and nothing ever prompts for a password.",
    "R16": "A key file that others may read is warned of, or refused when strict; secrets are never shown.",
    "R17": "Reloading swaps to a certificate that was tried first; failing, it leaves everything as it was.",
    # ---------------------------------------------------------------- framing and parsing
    "R18": "Lines, header fields, their values, URIs and bodies each have a limit.",
    "R19": "Content-Length is digits, exactly one on a stream, and too large a body is refused before it is read.",
    "R20": "Reading takes linear time, whatever comes and in whatever pieces.",
    "R21": "Whatever the input, the parser raises nothing but MessageParsingException.",
    "R22": "Bare CR, LF, NUL and controls get neither in from the wire nor out from the application.",
    "R23": "After a framing error: one 4xx if somebody can be answered, then the end of the connection.",
    "R24": "A message that was cut off is never delivered, and its end is reported as abnormal.",
    # ---------------------------------------------------------------- resources
    "R25": "The first message comes within 32 seconds, and each is complete 15 seconds after its first byte.",
    "R26": "Idle connections end after 900 seconds, those whose pong is missing after 10; pings are not a flood.",
    "R27": "Connections are limited in all, by address and in handshake; the surplus is closed at once.",
    "R28": "Who does not read what we write is no longer read from, then dropped; all buffers have one limit.",
    "R29": "Transactions are limited per connection and in all; above that 503 with Retry-After, or THROTTLED.",
    "R30": "Limits on the rates of handshakes and requests are off by default and work when set.",
    "R31": "Memory and descriptors return to where they were after an attack.",
    "R32": "A correct peer is answered within two seconds during every attack.",
    "R33": "Out of descriptors, we neither spin nor disturb those who are connected, and recover in a second.",
    "R34": "Digest challenges are answered twice at most, with strong tokens, and MD5 only when allowed.",
    "R35": "Strays are dropped, and what cannot be served gets the one status that RFC 3261 asks for.",
    # ---------------------------------------------------------------- life cycle
    "R36": "Each operation completes exactly once, whatever dies; no callback runs inside begin_.",
    "R37": "An exception in a callback or in one connection is logged and costs that connection at most.",
    "R38": "Closing flushes: the last answer arrives.",
    "R39": "Stopping fails what is pending within two seconds and leaves no port, thread or traceback.",
    "R40": "After a fork the parent works on, and the child's copies refuse, send nothing and hold no port.",
    "R41": "Ctrl-C ends any blocking call within half a second, and the rest works on.",
    "R42": "Steps of the wall clock and a suspended machine lose or double no timer.",
    "R43": "Contact and Via bear an address that can be reached, and no zone; mapped IPv4 peers count as IPv4.",
    "R44": "Log lines are limited in rate, and what a peer wrote is escaped and cut in them.",
    "R45": "allowed_domains match as in UCMA, and a refused peer gets no SIP byte.",
    # ---------------------------------------------------------------- faults
    "F15": "A server's certificate has a defect.",
    "F16": "A TLS 1.3 refusal comes late, with 1, 3 and 100 requests queued.",
    "F17": "A peer refuses, cannot be reached, has an impossible address, or its name is not resolved.",
    "F18": "accept, send and recv fail with each errno.",
    "F19": "send takes one byte at a time, or wants to be called again every second time.",
    "F20": "recv gives one byte at a time, or 500 messages at once.",
    "F21": "A callback raises, blocks, stops the manager, or closes its own connection.",
    "F22": "A peer falls silent without a FIN.",
    "F23": "An application begins requests faster than they leave.",
    "F24": "Certificate files change, do not match, are half written or missing during a reload.",
    "F25": "The certificate store holds garbage, a thousand files, unreadable ones, wrong passwords, two matches.",
    "F26": "The wall clock steps by an hour.",
    "F27": "The process forks while requests are pending.",
    "F28": "Ctrl-C comes at any moment.",
    "F29": "The interpreter exits with connections open and requests pending.",
    "F30": "Listening starts and stops again and again while peers connect.",
    "F31": "Both sides connect and send to each other at once.",
    "F32": "Two names lie at one address, and its certificate has one of them.",
    "F33": "A sips target sends us to sip or TCP by redirect, Contact or Route.",
    "F34": "A peer challenges for ever, each time with a new nonce.",
    "F35": "The application gives header values with CR, LF, NUL or bytes above 127.",
    "F36": "Memory or the stack's depth runs out within one connection.",
    "F37": "A socket connects to itself, or to our own listener.",
    "F38": "IPv6 in all its forms: loopback, mapped IPv4, zones, any.",
    "F39": "Thousands of connections and calls come and go.",
    "F40": "The first request comes with the handshake's last bytes, two in one TLS record, one over forty.",
    "F41": "Key updates, empty records and records of one byte come in numbers.",
    # ---------------------------------------------------------------- advisories
    "A1": "A Content-Length beyond 32 bits wrapped, and the body's tail passed for a message.",
    "A2": "Content-Length overflowed, or was read where it is no number.",
    "A3": "A peer that announced more than it sent before closing made the reader spin.",
    "A4": "The handshake had no deadline.",
    "A5": "Listener and handshake raced: one was destroyed while the other read.",
    "A6": "A TLS connection verified for one name was used for another at the same address.",
    "A7": "Many connections closing at once brought the server down.",
    "A8": "Connections were never closed, until the table was full.",
    "A9": "Too many values of one header overran a fixed table.",
    "A10": "A multipart body without its boundary led out of bounds or round for ever.",
    "A11": "A crafted Authorization header crashed.",
    "A12": "Field parsers ran past the end of truncated messages.",
    "A13": "Odd methods and percent escapes at the end of a URI were over-read.",
    "A14": "From or To with no SIP URI dereferenced nothing.",
    "A15": "Numbers too large for CSeq, port, ttl or expires overflowed.",
    "A16": "A header name with a control character before the colon was taken for the name.",
    "A17": "Each challenge with a new nonce led to another attempt, without end.",
    "A18": "From was believed without regard to who had authenticated.",
    "A19": "Answers told strangers which users exist.",
    "A20": "A stranger's bad ClientHello tore down somebody else's call.",
    "A21": "A ClientHello with nothing acceptable crashed the server.",
    "A22": "A send that failed at once tore down twice, or reported from within the call.",
    "A23": "A subscription that ended within its own callback was used afterwards.",
    "A24": "Tokens could be guessed, and a clock set back upset timers.",
    "A25": "Bytes sent before the TLS handshake counted as decrypted.",
    "A26": "Two threads used one TLS object.",
}


class Claim(NamedTuple):
    """A test says that it holds something."""

    identifier: str
    test: str


def claims(source: str) -> Iterator[Claim]:
    """Every ``pytest.mark.holds`` of a module: of a function, of a parameter set, or of the module (no test's name)."""
    for node in ast.parse(source).body:
        test = node.name if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) else ""
        for call in ast.walk(node):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "holds":
                for argument in call.args:
                    yield Claim(str(ast.literal_eval(argument)), test)


def holders() -> dict[str, list[str]]:
    """Which tests hold each identifier that any test names, as pytest calls them."""
    found: dict[str, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        name = path.relative_to(TESTS.parent).as_posix()
        source = path.read_text(encoding="utf-8")
        for claim in claims(source) if ".holds(" in source else ():
            test = f"{name}::{claim.test}" if claim.test else name
            if test not in found.setdefault(claim.identifier, []):
                found[claim.identifier].append(test)
    return found
