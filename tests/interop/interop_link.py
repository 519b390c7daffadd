"""Our endpoint and SIPp, at the two ends of TCP or of mutual TLS."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import trustme
from interop_referee import watch
from interop_script import Script
from interop_support import LOOPBACK, PATIENCE, Identity, Sipp, Stunnel, free_port, require_sipp, require_stunnel

from p2psip import (
    ManagerSettings,
    MessageReceivedEventArgs,
    Operation,
    RealTimeConnection,
    RealTimeEndpoint,
    RealTimeServerConnectionManager,
    RealTimeServerTcpConnectionManager,
    RealTimeServerTlsConnectionManager,
    SendMessageOptions,
    SipPeerToPeerEndpoint,
    SipResponseData,
    TraceEventArgs,
)

KINDS = ("TCP", "TLSv1.2", "TLSv1.3")
METHODS = ("MESSAGE", "OPTIONS")
OURS = "p2psip.example.com"
THEIRS = "sipp.example.com"


class Link:
    """An endpoint of ours that listens, and the programs that stand opposite.

    Args:
        folder: Where files go.
        kind: ``TCP``, or the version of TLS.
        settings: Of our manager.
    """

    def __init__(self, folder: Path, kind: str, settings: ManagerSettings | None = None) -> None:
        require_sipp()
        self.folder = folder
        self.kind = kind
        self.is_secure = kind != "TCP"
        self._programs = contextlib.ExitStack()
        self.manager: RealTimeServerConnectionManager
        if self.is_secure:
            require_stunnel()
            authority = trustme.CA()
            self.local = make_identity(folder, "localhost", authority, authority)
            ours, self.theirs = (make_identity(folder, name, authority, authority) for name in (OURS, THEIRS))
            self.manager = RealTimeServerTlsConnectionManager.from_files(
                str(ours.certificate), ours.key, trusted_roots=ours.trusted, settings=settings
            )
        else:
            self.manager = RealTimeServerTcpConnectionManager(OURS, settings=settings)
        watch(self.manager)
        self.manager.start_listening((LOOPBACK, 0))
        self.endpoint = SipPeerToPeerEndpoint(f"sip:bob@{OURS}", self.manager)

    def close(self) -> None:
        self._programs.close()
        self.manager.dispose()

    def _words(self, method: str, code: int, words: dict[str, object]) -> dict[str, object]:
        transport = "TLS" if self.is_secure else "TCP"
        return {"METHOD": method, "CODE": code, "REASON": "As Asked", "TRANSPORT": transport, **words}

    def client(
        self,
        method: str,
        scenario: str | Script = "client",
        *,
        identity: Identity | None = None,
        code: int = 200,
        calls: int = 1,
        in_flight: int = 50,
        connection_per_call: bool = False,
        rate: int = 10000,
        patience: float = PATIENCE,
        **words: object,
    ) -> Sipp:
        """SIPp calls our endpoint and wants the answer ``code``."""
        port = self.manager.listening_port
        if self.is_secure:
            tunnel = Stunnel(self.folder, identity or self.theirs, port, is_client=True, version=self.kind)
            port = self._programs.enter_context(tunnel).port
        words = {"URI": f"sip:bob@{OURS}", "FROM": f"sip:sipp@{THEIRS}", "NO_PROVISIONAL": "true", "BODY": "", **words}
        words.setdefault("CONTACT", "[local_ip]:[local_port]")
        sipp = Sipp(
            self.folder,
            scenario,
            remote=port,
            calls=calls,
            in_flight=in_flight,
            connection_per_call=connection_per_call,
            rate=rate,
            patience=patience,
            words=self._words(method, code, words),
        )
        return self._programs.enter_context(sipp)

    def server(
        self,
        method: str,
        scenario: str | Script = "server",
        *,
        identity: Identity | None = None,
        code: int = 200,
        calls: int = 1,
        patience: float = PATIENCE,
        **words: object,
    ) -> Server:
        """SIPp waits for our endpoint and answers ``code``."""
        inner = port = free_port()
        contact = f"{LOOPBACK}:{port}"
        if self.is_secure:
            tunnel = Stunnel(self.folder, identity or self.theirs, inner, is_client=False, version=self.kind)
            port = self._programs.enter_context(tunnel).port
            contact = f"localhost:{port}"
        words = self._words(method, code, {"CONTACT": contact, **words})
        sipp = Sipp(self.folder, scenario, port=inner, calls=calls, patience=patience, words=words)
        self._programs.enter_context(sipp)
        return Server(self.endpoint, method, sipp, port)

    def check_connection(self, connection: RealTimeConnection) -> None:
        """It is of the kind asked for, and the peer is who it should be."""
        if self.is_secure:
            assert (connection.tls_version, connection.remote_identities) == (self.kind, (THEIRS,))
        else:
            assert (connection.tls_version, connection.remote_identities) == (None, ())


@contextlib.contextmanager
def link(folder: Path, kind: str, settings: ManagerSettings | None = None) -> Iterator[Link]:
    """The same, closed at the end."""
    made = Link(folder, kind, settings)
    with contextlib.closing(made):
        yield made


class Server:
    """SIPp as a server, and how to reach it."""

    def __init__(self, endpoint: SipPeerToPeerEndpoint, method: str, sipp: Sipp, port: int) -> None:
        self.sipp = sipp
        self._endpoint = endpoint
        self._method = method
        self.port = port
        self._address = f"sip:sipp@{LOOPBACK}:{port}"

    def begin_send(
        self, number: int, *, name: str = THEIRS, timeout: float | None = None, padding: str = ""
    ) -> Operation[SipResponseData]:
        """Send it the request of that number."""
        return self._endpoint.begin_send_message(
            self._method,
            self._address,
            body=f"number {number}{padding}",
            options=SendMessageOptions(tls_target_name=name),
            timeout=timeout,
        )

    def send(self, number: int) -> SipResponseData:
        """Send it the request of that number and wait for the answer."""
        return self.begin_send(number).result(PATIENCE)


class Heard:
    """A handler of ``message_received`` that keeps what came."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.methods: set[str] = set()
        self.connections: dict[int, RealTimeConnection] = {}
        self.authenticated: set[bool] = set()

    def __call__(self, sender: RealTimeEndpoint, args: MessageReceivedEventArgs) -> None:
        match = re.match(r"number (\d+)", args.text_body or "")
        assert match is not None, args.request_data.to_bytes()
        self.numbers.append(int(match[1]))
        self.methods.add(args.request_data.message_type)
        self.connections[args.connection.id] = args.connection
        self.authenticated.add(args.is_sender_authenticated)


class Counter:
    """A handler that counts: everything, or the messages in a trace that begin so."""

    def __init__(self, beginning: bytes = b"") -> None:
        self._beginning = beginning
        self._count = 0
        self._news = threading.Condition()

    def __call__(self, sender: object, args: object) -> None:
        if isinstance(args, TraceEventArgs) and not args.data.startswith(self._beginning):
            return
        with self._news:
            self._count += 1
            self._news.notify_all()

    def wait(self, count: int) -> None:
        """Wait until it has been called so often."""
        with self._news:
            assert self._news.wait_for(lambda: self._count >= count, PATIENCE), self._count
            assert self._count == count


def make_identity(folder: Path, name: str, issuer: trustme.CA, trusted: trustme.CA) -> Identity:
    """A certificate for that name, as files."""
    issued = issuer.issue_cert(name)
    certificate, key, roots = (folder / f"{name}.{ending}" for ending in ("pem", "key", "trusted.pem"))
    certificate.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    key.touch(0o600)
    issued.private_key_pem.write_to_path(key)
    trusted.cert_pem.write_to_path(roots)
    return Identity(certificate, key, roots)
