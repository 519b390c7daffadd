"""PUBLISH as its client (RFC 3903)."""

from __future__ import annotations

from typing import Any

import pytest
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


@pytest.fixture
def world() -> World:
    return World()


def publication(world: World, **options: Any) -> Publication:
    target = Target("TLS", "bob.example", 5061, "bob.example")
    alice = world.alice
    return Publication(
        alice.engine, alice.record, alice, event="presence", uri="sip:bob@bob.example", target=target, **options
    )


def test_published_replaced_refreshed_and_removed(world: World) -> None:
    there, ours = Compositor(world), publication(world)
    assert world.alice.do(ours.publish, OPEN, ()).message.status_code == 200
    assert there.seen() == (None, "3600", OPEN.body)
    assert there.requests[0].headers.get("Event") == "presence"
    world.alice.do(ours.publish, CLOSED, ())
    assert there.seen() == ("tag1", "3600", CLOSED.body)
    world.pass_time(3545.0)
    assert there.seen() == ("tag2", "3600", b"")
    assert world.alice.do(ours.remove).message.status_code == 200
    assert there.seen() == ("tag3", "0", b"")
    assert [event.is_active for event in world.alice.happened("PublicationChanged")] == [True, True, True, False]
    world.assert_over()


def test_what_is_gone_is_published_anew(world: World) -> None:
    there, ours = Compositor(world), publication(world)
    world.alice.do(ours.publish, OPEN, ())
    there.answers.append((412, []))
    world.pass_time(3545.0)
    assert [there.seen(index) for index in (1, 2)] == [("tag1", "3600", b""), (None, "3600", OPEN.body)]
    assert ours.entity_tag == "tag3"
    world.alice.do(ours.remove)
    world.assert_over()


def test_too_short_is_asked_for_again(world: World) -> None:
    there, ours = Compositor(world), publication(world, expires=60)
    there.answers.append((423, [("Min-Expires", "300")]))
    assert world.alice.do(ours.publish, OPEN, ()).message.status_code == 200
    assert there.seen() == (None, "300", OPEN.body)
    world.alice.do(ours.remove)
    world.assert_over()


def test_a_refusal_is_told_and_leaves_nothing(world: World) -> None:
    there, ours = Compositor(world), publication(world)
    there.answers.append((403, []))
    assert world.alice.do(ours.publish, OPEN, ()).message.status_code == 403
    assert ours.entity_tag is None
    assert world.alice.do(ours.remove).ends == [(None, None)]
    world.assert_over()


def test_one_at_a_time(world: World) -> None:
    there, ours = Compositor(world), publication(world)
    world.held = []
    first = world.alice.do(ours.publish, OPEN, ())
    second = world.alice.do(ours.publish, CLOSED, ())
    assert "under way" in str(second.error)
    world.release()
    assert first.message.status_code == 200
    assert len(there.requests) == 1
    world.alice.do(ours.remove)
    world.assert_over()


def test_a_refresh_that_finds_no_way_is_tried_again(world: World) -> None:
    there, ours = Compositor(world), publication(world)
    world.alice.do(ours.publish, OPEN, ())
    world.cut()
    world.unreachable = True
    world.pass_time(3545.0)
    world.unreachable = False
    world.pass_time(40.0)
    assert len(there.requests) == 2
    world.alice.do(ours.remove)
    world.assert_over()
