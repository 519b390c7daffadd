"""Alice publishes at Bob's, who is a compositor (RFC 3903)."""

from __future__ import annotations

from typing import Any

from call_support import World
from core_support import Target

from p2psip.core.dialog import Content
from p2psip.core.publish import Publication
from p2psip.message import Request

OPEN = Content("application/pidf+xml", b"<presence><basic>open</basic></presence>")
CLOSED = Content("application/pidf+xml", b"<presence><basic>closed</basic></presence>")


class Compositor:
    """Bob's side: what it is sent, and what it answers next."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.requests: list[Request] = []
        self.answers: list[tuple[int, list[tuple[str, str]]]] = []
        self.tags = 0
        world.bob.engine.acceptors["PUBLISH"] = self.publish

    def publish(self, now: float, transaction: Any, record: Any) -> None:
        self.requests.append(transaction.request)
        self.tags += 1
        fine = (200, [("SIP-ETag", f"tag{self.tags}"), ("Expires", transaction.request.headers.get("Expires") or "")])
        code, headers = self.answers.pop(0) if self.answers else fine
        transaction.respond(transaction.create_response(code, headers=headers))

    def seen(self, index: int = -1) -> tuple[str | None, str | None, bytes]:
        request = self.requests[index]
        return request.headers.get("SIP-If-Match"), request.headers.get("Expires"), request.body


def publication(world: World, **options: Any) -> Publication:
    target = Target("TLS", "bob.example", 5061, "bob.example")
    alice = world.alice
    return Publication(
        alice.engine, alice.record, alice, event="presence", uri="sip:bob@bob.example", target=target, **options
    )
