"""Our endpoint opposite a user agent of others: it takes each call, and keeps what it was offered."""

from __future__ import annotations

import threading
from pathlib import Path

import trustme
from interop_calls import AUDIO
from interop_link import make_identity
from interop_referee import watch
from interop_support import LOOPBACK, PATIENCE, Identity

from p2psip import (
    ContentDescription,
    RealTimeServerConnectionManager,
    RealTimeServerTcpConnectionManager,
    RealTimeServerTlsConnectionManager,
    SipPeerToPeerEndpoint,
)
from p2psip.session import SignalingSession

KINDS = ("TCP", "TLS")
HELD = ContentDescription("application/sdp", AUDIO.body + b"a=sendonly\r\n")


class Ours:
    """The endpoint, which listens.

    Args:
        folder: Where files go.
        kind: ``TCP`` or ``TLS``, which is mutual.

    Attributes:
        address: Where the other calls us.
        theirs: What the other is to show and to trust; None on TCP.
        sessions: The calls that came in, the oldest first.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        self.kind = kind
        self.theirs: Identity | None = None
        self.manager: RealTimeServerConnectionManager
        if kind == "TLS":
            authority = trustme.CA()
            (folder / "ours").mkdir()
            (folder / "theirs").mkdir()
            ours = make_identity(folder / "ours", LOOPBACK, authority, authority)
            self.theirs = make_identity(folder / "theirs", LOOPBACK, authority, authority)
            self.manager = RealTimeServerTlsConnectionManager.from_files(
                str(ours.certificate), ours.key, trusted_roots=ours.trusted
            )
        else:
            self.manager = RealTimeServerTcpConnectionManager(LOOPBACK)
        self._unhandled: list[BaseException] = []
        self.manager.unhandled_exception += lambda sender, args: self._unhandled.append(args.exception)
        watch(self.manager)
        self.manager.start_listening((LOOPBACK, 0))
        self.endpoint = SipPeerToPeerEndpoint(f"sip:bob@{LOOPBACK}", self.manager)
        # Without its transport others would take it to UDP.
        self.address = f"sip:bob@{LOOPBACK}:{self.manager.listening_port};transport={kind.lower()}"
        self.sessions: list[SignalingSession] = []
        self._offers: list[ContentDescription | None] = []
        self._news = threading.Condition()
        self.endpoint.session_received += self._take

    def answer(self, offer: ContentDescription | None) -> ContentDescription:
        """What we say to an offer, which is kept."""
        with self._news:
            self._offers.append(offer)
            self._news.notify_all()
        return AUDIO

    def wait_for_offers(self, count: int) -> list[bytes]:
        """Wait until we were offered something so often; all that."""
        with self._news:
            assert self._news.wait_for(lambda: len(self._offers) >= count, PATIENCE), self._offers
        return [b"" if offer is None else offer.body for offer in self._offers]

    def take(self, session: SignalingSession) -> None:
        """What is done with a call; a test may put something else in its place."""
        session.send_provisional_response(180)
        session.begin_accept(self.answer)

    def _take(self, sender: object, args: object) -> None:
        session: SignalingSession = args.session  # type: ignore[attr-defined]
        with self._news:
            self.sessions.append(session)
            self._news.notify_all()
        self.take(session)

    def wait_for_calls(self, count: int) -> list[SignalingSession]:
        """Wait until so many have come; all of them."""
        with self._news:
            assert self._news.wait_for(lambda: len(self.sessions) >= count, PATIENCE), self.sessions
        return self.sessions

    def close(self) -> None:
        """End it. No handler has failed."""
        self.manager.dispose()
        assert self._unhandled == []
