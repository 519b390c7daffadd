"""A peer on loopback that is written with ``ssl`` and sockets alone and does what a script says, and a trap."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Sequence

from facade_support import BOUND

from p2psip.message import Request, Response, create_response, parse_message
from p2psip.testing import CertificateAuthority

Script = Callable[["ScriptedPeer", Request], Sequence["Response | Request | None"]]
"""What is said to a request; None: no more over this connection."""


class ScriptedPeer:
    """Answers each request with what the script makes of it, over mutual TLS or over TCP.

    Attributes:
        requests: All that came, in order, with the number of the connection that each came over.
        connections: How many were opened.
    """

    def __init__(self, script: Script, authority: CertificateAuthority | None = None, name: str = "localhost") -> None:
        self._script = script
        self._context: ssl.SSLContext | None = None
        if authority is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.verify_mode = ssl.CERT_REQUIRED
            self._context.load_verify_locations(cadata=authority.pem.decode())
            authority.issue(name, "127.0.0.1").load_into(self._context)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self.requests: list[tuple[int, Request]] = []
        self.connections = 0
        self._changed = threading.Condition()
        threading.Thread(target=self._serve, daemon=True).start()

    def __enter__(self) -> ScriptedPeer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    @property
    def methods(self) -> list[str]:
        """Of the requests that came."""
        return [request.method for _, request in self.requests]

    def wait(self, method: str, count: int = 1) -> None:
        """Until so many requests of that method have come."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.methods.count(method) >= count, BOUND), self.methods

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._server.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._talk, args=(sock, self.connections), daemon=True).start()

    def _talk(self, sock: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError), sock:
            stream = sock if self._context is None else self._context.wrap_socket(sock, server_side=True)
            with stream:
                data = b""
                while chunk := stream.recv(65536):
                    data = self._answer(stream, number, data + chunk)

    def _answer(self, stream: socket.socket, number: int, data: bytes) -> bytes:
        """What is left of the data: requests of these tests have no body, or all of it in one piece."""
        while b"\r\n\r\n" in data:
            head, _, rest = data.partition(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            if len(rest) < length:
                break
            message = parse_message(head + b"\r\n\r\n" + rest[:length])
            data = rest[length:]
            if isinstance(message, Request):
                with self._changed:
                    self.requests.append((number, message))
                    self._changed.notify_all()
                for said in self._script(self, message):
                    if said is None:
                        raise OSError("enough of it")
                    stream.sendall(said.to_bytes())
        return data


class Trap(ScriptedPeer):
    """Where nothing should arrive in clear: takes the first bytes of each connection, and closes it.

    Attributes:
        heard: Those bytes.
    """

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        super().__init__(lambda peer, request: ())

    def _talk(self, sock: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError), sock:
            sock.settimeout(BOUND)
            self.heard.append(sock.recv(65536))

    @property
    def plain(self) -> list[bytes]:
        """What came that is no TLS record of a handshake."""
        return [data for data in self.heard if data and data[:1] != b"\x16"]


def respond(request: Request, code: int, *headers: tuple[str, str], body: bytes = b"") -> Response:
    """An answer that makes a dialog."""
    return create_response(request, code, to_tag="t", headers=headers, body=body)


def notify(request: Request, contact: str) -> Request:
    """The NOTIFY that a SUBSCRIBE asks for, without anything in it."""
    state = "terminated" if request.headers.get("Expires") == "0" else "active;expires=60"
    number = request.cseq.number
    pairs = [
        ("Via", f"SIP/2.0/TLS localhost;branch=z9hG4bKnotify{number}"),
        ("Max-Forwards", "70"),
        ("From", (request.headers.get("To") or "").partition(";")[0] + ";tag=t"),
        ("To", request.headers.get("From") or ""),
        ("Call-ID", request.call_id or ""),
        ("CSeq", f"{number} NOTIFY"),
        ("Contact", contact),
        ("Event", "presence"),
        ("Subscription-State", state),
    ]
    return Request("NOTIFY", str(request.contact[0].uri), pairs)
