"""Challengers that mean no good, or do what nobody expects of them (RFC 3261 22, RFC 7616 5)."""

from __future__ import annotations

from typing import Any

import pytest
from call_support import World
from core_support import FakeFlow, Side, Target, make_record, make_request
from publication_support import OPEN, Compositor, publication
from subscription_support import Watch

from p2psip.core.authentication import Credential
from p2psip.core.digest import secret_of
from p2psip.core.digest_demand import DigestDemand
from p2psip.core.refer_outside import OutsideRefer
from p2psip.core.usage import ClientUsage
from p2psip.message import Request, Response, create_response, parse_field, parse_message

TARGET = Target("TCP", "proxy.example", 5060, None)


class AnyRealm:
    """Credentials for whoever asks."""

    def __init__(self, credential: Credential | None = None) -> None:
        self.credential = credential or Credential("alice", "wonderland")

    def find(self, realm: str) -> Credential | None:
        return self.credential


class Listener(ClientUsage):
    """What a request comes to in the end."""

    def __init__(self) -> None:
        self.codes: list[int] = []

    def responded(self, now: float, client_request: Any, response: Response) -> None:
        self.codes.append(response.status_code)


class Client:
    """A side with credentials for everybody; the test plays the network."""

    def __init__(self, transport: str = "TCP") -> None:
        self.side = Side("a")
        self.record = make_record("sip:alice@a.example")
        self.record.credentials = AnyRealm()
        self.flow = FakeFlow(transport=transport)
        self.listener = Listener()

    def send(self, method: str = "MESSAGE", **more: Any) -> Request:
        usage = self.listener if method == "INVITE" else None
        self.side.engine.send_request(
            0.0, make_request(method, **more), TARGET, "user", usage=usage, record=self.record
        )
        return self.requests()[0]

    def answer(self, request: Request, code: int, *headers: tuple[str, str]) -> list[Request]:
        self.side.engine.receive(0.0, self.flow, create_response(request, code, to_tag="t", headers=headers))
        return self.requests()

    def answer_with_nul(self, request: Request, code: int, *headers: tuple[str, str]) -> list[Request]:
        """With a NUL as a quoted-pair in place of each X: only a peer may write that."""
        text = create_response(request, code, to_tag="t", headers=headers).to_bytes()
        self.side.engine.receive(0.0, self.flow, parse_message(text.replace(b'"X"', b'"\\\0"')))
        return self.requests()

    def requests(self) -> list[Request]:
        """What goes out now."""
        self.side.take()
        while self.side.opening:
            self.side.engine.flow_opened(0.0, self.side.opening.pop(0), self.flow)
            self.side.take()
        sent = [message for _, message in self.side.sent if isinstance(message, Request)]
        self.side.sent.clear()
        return sent


def challenge(realm: str, more: str = "algorithm=SHA-256", nonce: str = "n") -> tuple[str, str]:
    return "WWW-Authenticate", f'Digest realm="{realm}", nonce="{nonce}", qop="auth", {more}'


@pytest.mark.holds("F34", "A17", "R34")
def test_a_new_realm_each_time_comes_to_an_end() -> None:
    """With credentials for any realm, each of them is a first try."""
    client = Client()
    request = client.send()
    for number in range(100):
        sent = client.answer(request, 401, challenge(f"realm{number}"))
        if not sent:
            break
        (request,) = sent
    assert number < 20
    assert client.side.codes == [401]
    client.side.assert_empty()


@pytest.mark.holds("R34", "F34", "A17")
def test_a_new_nonce_that_is_stale_each_time_comes_to_an_end() -> None:
    client = Client()
    request = client.send()
    for number in range(100):
        sent = client.answer(request, 401, challenge("realm", "algorithm=SHA-256, stale=true", f"n{number}"))
        if not sent:
            break
        (request,) = sent
    assert number < 5
    assert client.side.codes == [401]


def test_hundreds_of_realms_at_once_are_not_all_answered() -> None:
    """What it costs us to be asked is not to be multiplied."""
    client = Client()
    request = client.send()
    sent = client.answer(request, 401, *(challenge(f"realm{number}") for number in range(300)))
    assert all(message.headers.count("Authorization") <= 20 for message in sent)


@pytest.mark.parametrize("text", ['a\\"b', "a\\\\b", "a, b=c", "Digest x", "\xe9\u4e2d", "a;b", "%0d%0a"])
def test_realms_and_nonces_are_given_back_as_they_were(text: str) -> None:
    client = Client()
    request = client.send()
    (again,) = client.answer(request, 401, challenge(text, nonce=text))
    _, asked = parse_field("WWW-Authenticate", challenge(text, nonce=text)[1])
    _, said = parse_field("Authorization", again.headers.get("Authorization") or "")
    assert (said["realm"], said["nonce"]) == (asked["realm"], asked["nonce"])
    assert f'realm="{text}"' in (again.headers.get("Authorization") or "")


@pytest.mark.parametrize("octet", ["\x01", "\t", "\x7f"])
def test_control_characters_are_given_back_as_quoted_pairs(octet: str) -> None:
    """As a quoted-pair a peer may send them; bare, nobody would take them (RFC 3261 25.1)."""
    client = Client()
    request = client.send()
    (again,) = client.answer(
        request, 401, challenge(f"a\\{octet}b", f'algorithm=SHA-256, opaque="\\{octet}"', f"\\{octet}")
    )
    _, said = parse_field("Authorization", parse_message(again.to_bytes()).headers.get("Authorization") or "")
    assert (said["realm"], said["nonce"], said["opaque"]) == (f"a{octet}b", octet, octet)


@pytest.mark.parametrize("parameter", ["realm", "nonce", "opaque"])
def test_a_nul_cannot_be_given_back(parameter: str) -> None:
    """Nothing that we write bears one: such a challenge is one that nobody can answer."""
    client = Client()
    request = client.send()
    values = {"realm": "r", "nonce": "n", "opaque": "o", parameter: "X"}
    text = "Digest algorithm=SHA-256, " + ", ".join(f'{name}="{value}"' for name, value in values.items())
    assert client.answer_with_nul(request, 401, ("WWW-Authenticate", text)) == []
    assert client.side.codes == [401]
    client.side.assert_empty()


def test_the_next_nonce_cannot_bear_a_nul() -> None:
    client = Client()
    (again,) = client.answer(client.send(), 401, challenge("realm", nonce="first"))
    client.answer_with_nul(again, 200, ("Authentication-Info", 'nextnonce="X"'))
    request = client.send()
    assert 'nonce="first"' in (request.headers.get("Authorization") or "")


def test_a_401_that_comes_again_is_acknowledged_as_the_first_one() -> None:
    """The ACK belongs to the transaction of the INVITE that was refused, not to the next one (RFC 3261 17.1.1.3)."""
    client = Client("UDP")
    invite = client.send("INVITE")
    refused = create_response(invite, 401, to_tag="t", headers=[challenge("realm")])
    client.side.engine.receive(0.0, client.flow, refused)
    first, again = client.requests()
    assert (first.method, again.method) == ("ACK", "INVITE")
    client.side.engine.receive(0.1, client.flow, refused)
    (second,) = client.requests()
    assert second.method == "ACK"
    assert second.to_bytes() == first.to_bytes()


def test_the_retransmission_of_the_second_try_is_the_second_try() -> None:
    client = Client("UDP")
    request = client.send()
    (again,) = client.answer(request, 401, challenge("realm"))
    client.side.engine.advance(0.5)
    (copy,) = client.requests()
    assert copy.to_bytes() == again.to_bytes()


def test_a_publication_never_uses_a_number_twice() -> None:
    """RFC 3261 8.1.1.5: the second try has taken the number that the refresh would have had."""
    world = World()
    compositor = Compositor(world)
    world.alice.record.credentials = AnyRealm()
    published = publication(world)
    for _ in range(3):
        compositor.answers.append((401, [challenge("realm", nonce=f"n{len(compositor.requests)}")]))
        world.alice.do(published.publish, OPEN, ())
    numbers = [request.cseq.number for request in compositor.requests]
    assert len(numbers) == 6
    assert numbers == sorted(set(numbers))


def test_what_was_answered_in_one_place_does_not_pile_up() -> None:
    client = Client()
    for number in range(50):
        request = client.send()
        client.answer(client.answer(request, 401, challenge(f"realm{number}"))[0], 200)
    request = client.send()
    assert 1 <= request.headers.count("Authorization") <= 16
    assert 'realm="realm49"' in request.to_bytes().decode()


def demanding(world: World) -> None:
    """Alice wants to know from whom each request is."""
    world.alice.record.demand = DigestDemand(
        "alice", {"bob": Credential("bob", "x")}, ["SHA-256"], "key", except_certificates=False
    )


@pytest.mark.parametrize("knows", [False, True])
@pytest.mark.parametrize("outside", [False, True], ids=["SUBSCRIBE", "REFER"])
def test_a_notify_that_makes_its_dialog_is_asked_for_a_password_as_well(outside: bool, knows: bool) -> None:
    """It comes before the 2xx, or from another fork."""
    world = World()
    demanding(world)
    if knows:
        world.bob.record.credentials = AnyRealm(Credential("bob", "x"))
    method = "REFER" if outside else "SUBSCRIBE"
    world.lose = lambda message: isinstance(message, Response) and message.cseq.method == method
    if outside:
        target = Target("TLS", "bob.example", 5061, "bob.example")
        alice = world.alice
        uri, local = "sip:bob@bob.example", "<sip:alice@alice.example>;tag="
        refer = OutsideRefer(alice.engine, alice.record, alice, uri=uri, to=f"<{uri}>", target=target, local_from=local)
        alice.do(refer.refer, "<sip:carol@carol.example>", (), None, True)
        world.bob.sessions[-1].accept(world.now)
        world.run()
    else:
        Watch(world).accept()
    answers = [m.status_code for _, m in world.messages if isinstance(m, Response) and m.cseq.method == "NOTIFY"]
    assert answers == ([401, 200] if knows else [401])


def test_a_nonce_is_nobody_elses_before_it_has_proved_good() -> None:
    """Else another request that overtakes the one that was challenged would use it first, and the server see a replay."""
    client = Client()
    first = client.send()
    (again,) = client.answer(first, 401, challenge("realm", nonce="n1"))
    other = client.send()
    assert "Authorization" not in other.headers
    client.answer(again, 200)
    assert 'nonce="n1"' in (client.send().headers.get("Authorization") or "")


def test_a_ringing_call_has_proved_it() -> None:
    """What goes out in its early dialog need not be asked again."""
    client = Client()
    (_, again) = client.answer(client.send("INVITE", call_id="c"), 401, challenge("realm", nonce="n1"))
    client.answer(again, 100)
    assert "Authorization" not in client.send("INFO", call_id="c").headers
    client.answer(again, 180)
    assert 'nonce="n1"' in (client.send("INFO", call_id="c").headers.get("Authorization") or "")


def test_a_password_that_was_changed_is_tried_once_for_each_request() -> None:
    """Some servers lock those out who are wrong too often."""
    client = Client()
    client.answer(client.answer(client.send(), 401, challenge("realm"))[0], 200)
    known = client.send()
    assert "Authorization" in known.headers
    (again,) = client.answer(known, 401, challenge("realm", nonce="n2"))
    assert client.answer(again, 401, challenge("realm", nonce="n3")) == []
    assert "Authorization" not in client.send().headers


@pytest.mark.parametrize("name", ["mallory", ""])
def test_who_is_not_there_has_no_empty_password(name: str) -> None:
    """What somebody unknown is compared with, so that it takes as long, is nobody's proof."""
    server = Side("b")
    record = make_record()
    record.demand = DigestDemand("here", {"bob": Credential("bob", "x")}, ["SHA-256"], "key")
    server.directory.add(record)
    flow = FakeFlow(transport="TCP")
    client = Client()
    credential = Credential(name, None, {"SHA-256": secret_of("SHA-256", "", "here", "")})
    client.record.credentials = AnyRealm(credential)
    request = client.send()
    for _ in range(2):
        server.engine.receive(0.0, flow, request)
        answer = server.last()
        assert isinstance(answer, Response)
        assert answer.status_code == 401
        value = answer.headers.get("WWW-Authenticate") or ""
        sent = client.answer(request, 401, ("WWW-Authenticate", value))
        request = sent[0] if sent else request
    assert f'username="{name}"' in request.to_bytes().decode()
    assert server.delivered == []


@pytest.mark.parametrize(("wanted", "is_let_in"), [("auth", True), ("auth-int", False)])
def test_less_than_was_demanded_is_not_enough(wanted: str, is_let_in: bool) -> None:
    """Without the body in the proof anybody on the way could put in another one."""
    server = Side("b")
    record = make_record()
    users = {"alice": Credential("alice", "wonderland")}
    record.demand = DigestDemand("here", users, ["SHA-256"], "key", qop=wanted)
    server.directory.add(record)
    flow = FakeFlow(transport="TCP")
    client = Client()
    request = client.send(body=b"hello")
    server.engine.receive(0.0, flow, request)
    answer = server.last()
    assert isinstance(answer, Response)
    value = (answer.headers.get("WWW-Authenticate") or "").replace("auth-int", "auth")
    (request,) = client.answer(request, 401, ("WWW-Authenticate", value))
    server.engine.receive(0.0, flow, request)
    server.take()
    assert bool(server.delivered) is is_let_in
