"""``p2psip subscribe`` in a process of its own, against a notifier in this one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from calling import ladder, until
from cli_support import PATIENCE, CommandLine

from p2psip import IPAddress, RealTimeEndpoint, SipPeerToPeerEndpoint, SubscriptionReceivedEventArgs
from p2psip.testing import CertificateAuthority, tls_manager

PIDF = "application/pidf+xml"
OPEN = '<presence entity="sip:bob@localhost"><tuple id="1"><status><basic>open</basic></status></tuple></presence>'


class Watched(NamedTuple):
    """Bob, whose presence may be watched."""

    command: CommandLine
    uri: str
    endpoint: SipPeerToPeerEndpoint


@pytest.fixture
def bob(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watcher")
    authority = CertificateAuthority()
    store = folder / "certificates"
    authority.store(store, authority.issue("localhost", "127.0.0.1"))
    command = CommandLine(folder)
    command.environment["P2PSIP_CERTIFICATE_STORE"] = str(store)
    with tls_manager(authority, "localhost") as manager:
        manager.start_listening((IPAddress.LOOPBACK, 0))
        endpoint = SipPeerToPeerEndpoint("sip:bob@localhost", manager)
        yield Watched(command, f"sip:bob@localhost:{manager.listening_port}", endpoint)


def accept(sender: RealTimeEndpoint, args: SubscriptionReceivedEventArgs) -> None:
    args.subscription.accept(None, PIDF, OPEN)


def test_notifications_are_printed(bob: Watched) -> None:
    bob.endpoint.subscription_received += accept
    result = bob.command.run("subscribe", bob.uri, "--json", "--count", "1", "--accept", PIDF, "--expires", "600")
    assert result.code == 0, result
    (told,) = (line for line in result.json if line.get("event") == "notification")
    assert (told["package"], told["content_type"], told["text"]) == ("presence", PIDF, OPEN)
    assert told["subscription_state"].startswith("active")
    steps = ladder(result.json)
    assert [step for step in steps if "SUBSCRIBE" in step[1]][:2] == [
        ("sent", "SUBSCRIBE"),
        ("received", "200 (SUBSCRIBE)"),
    ]
    assert steps.count(("sent", "SUBSCRIBE")) == 2  # the second one ends it
    assert ("sent", "200 (NOTIFY)") in steps


def test_people_read_them(bob: Watched) -> None:
    bob.endpoint.subscription_received += accept
    result = bob.command.run("subscribe", bob.uri, "--count", "1")
    assert result.code == 0, result
    assert f"    {OPEN}" in result.out
    assert "Subscription-State: active" in result.out


def test_a_query_asks_once(bob: Watched) -> None:
    bob.endpoint.subscription_received += accept
    result = bob.command.run("subscribe", bob.uri, "--json", "--query")
    assert result.code == 0, result
    (told,) = (line for line in result.json if line.get("event") == "notification")
    assert told["text"] == OPEN
    assert ladder(result.json).count(("sent", "SUBSCRIBE")) == 1


def test_a_refusal_has_its_exit_code(bob: Watched) -> None:
    bob.endpoint.subscription_received += lambda sender, args: args.subscription.decline(403)
    result = bob.command.run("subscribe", bob.uri, "--json")
    assert result.code == 1, result
    assert "403" in result.sentence


def test_an_unknown_package_is_refused(bob: Watched) -> None:
    result = bob.command.run("subscribe", bob.uri, "--event", "weather")
    assert result.code == 1, result
    assert "489" in result.sentence


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT to send")
def test_ctrl_c_unsubscribes(bob: Watched) -> None:
    ends = []
    with bob.endpoint.subscription_received.expect(timeout=PATIENCE) as got:
        watcher = bob.command.start("subscribe", bob.uri, "--json")
    try:
        subscription = got.args.subscription
        subscription.accept(None, PIDF, OPEN)
        until(watcher, "notification", number=1)
        subscription.notify(PIDF, OPEN.replace("open", "closed"))
        assert "closed" in until(watcher, "notification", number=2)["text"]
        with subscription.ended.expect(timeout=PATIENCE) as end:
            ends.append(watcher.interrupt().code)
        assert end.args.why == "unsubscribed"
    finally:
        watcher.kill()
    assert ends == [130]


def test_a_notifier_that_ends_it_ends_the_command(bob: Watched) -> None:
    with bob.endpoint.subscription_received.expect(timeout=PATIENCE) as got:
        watcher = bob.command.start("subscribe", bob.uri, "--json")
    try:
        got.args.subscription.accept(None, PIDF, OPEN)
        until(watcher, "notification", number=1)
        got.args.subscription.terminate("noresource")
        assert until(watcher, "state", state="TERMINATED")
        until(watcher, "ladder")
        assert watcher.end().code == 0
    finally:
        watcher.kill()
