"""Digest authentication on both sides: challenged requests are sent again, and every kind of request is (RFC 3261 22)."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from call_support import ANSWER, OFFER, World, connected
from core_support import FakeFlow, Side, Target, make_record, make_request, received

from p2psip.core.authentication import MAXIMUM_KNOWN, Credential
from p2psip.core.digest import secret_of
from p2psip.core.digest_demand import LIFETIME, MAXIMUM_NONCES, MAXIMUM_PROOFS, DigestDemand
from p2psip.message import Request, Response, create_response

TARGET = Target("TCP", "proxy.example", 5060, None)
REALM = "example.net"


class Known:
    """Credentials as the core asks for them."""

    def __init__(self) -> None:
        self.by_realm: dict[str, Credential] = {}

    def find(self, realm: str) -> Credential | None:
        return self.by_realm.get(realm)


def known(*realms: str, allow_md5: bool = False, **more: Any) -> Known:
    credentials = Known()
    for realm in realms or (REALM,):
        credentials.by_realm[realm] = Credential("alice", "wonderland", allow_md5=allow_md5, **more)
    return credentials


def demand(users: dict[str, Credential] | None = None, algorithms: tuple[str, ...] = ("SHA-256",), **more: Any) -> Any:
    people = {"alice": Credential("alice", "wonderland")} if users is None else users
    return DigestDemand(REALM, people, algorithms, "key", **more)


def challenge(code: int = 407, realm: str = REALM, nonce: str = "n1", more: str = "algorithm=SHA-256") -> Any:
    name = "WWW-Authenticate" if code == 401 else "Proxy-Authenticate"
    return code, (name, f'Digest realm="{realm}", nonce="{nonce}", qop="auth", {more}')


class Client:
    """A side that sends a request, and is answered by hand."""

    def __init__(self, credentials: Known | None = None) -> None:
        self.side = Side("a")
        self.record = make_record("sip:alice@a.example")
        self.record.credentials = credentials
        self.flow = FakeFlow(transport="TCP")
        self.now = 0.0

    def send(self, method: str = "MESSAGE", target: Target = TARGET, **more: Any) -> Request:
        self.side.engine.send_request(self.now, make_request(method, **more), target, "user", record=self.record)
        return self.sent()

    def sent(self) -> Request:
        """What goes out, once it has a flow."""
        self.side.take()
        assert len(self.side.opening) == 1
        self.side.engine.flow_opened(self.now, self.side.opening.pop(), self.flow)
        message = self.side.last()
        assert isinstance(message, Request)
        return message

    def answer(self, request: Request, code: int, *headers: tuple[str, str]) -> None:
        self.side.engine.receive(self.now, self.flow, create_response(request, code, headers=headers))
        self.side.take()

    def answered(self, request: Request, code: int, *headers: tuple[str, str]) -> Request:
        """Answer it, and take what is sent in return."""
        self.answer(request, code, *headers)
        return self.sent()


def params(request: Request, field: str = "Proxy-Authorization") -> list[dict[str, str]]:
    fields = [value for name, value in request.headers if name == field]
    return [{key: text.strip('"') for key, _, text in (p.partition("=") for p in v[7:].split(", "))} for v in fields]


@pytest.mark.parametrize(("code", "field"), [(401, "Authorization"), (407, "Proxy-Authorization")])
def test_a_challenged_request_is_sent_again(code: int, field: str) -> None:
    """RFC 3261 22.2, and the negotiation table: another CSeq and branch, all else the same; one end is reported."""
    client = Client(known())
    first = client.send(body=b"hello")
    second = client.answered(first, *challenge(code))
    (said,) = params(second, field)
    assert (said["username"], said["realm"], said["nonce"], said["nc"]) == ("alice", REALM, "n1", "00000001")
    assert said["uri"] == second.uri == first.uri
    assert (second.cseq.number, second.cseq.method) == (first.cseq.number + 1, "MESSAGE")
    assert second.top_branch != first.top_branch
    assert second.headers.count("Via") == 1
    for name in ("Call-ID", "From", "To", "Max-Forwards"):
        assert second.headers.get(name) == first.headers.get(name)
    assert second.body == b"hello"
    assert client.side.codes == []
    client.answer(second, 200)
    assert client.side.codes == [200]
    assert client.flow.unanswered == 0
    client.side.assert_empty()


@pytest.mark.holds("R34", "F34", "A17")
def test_a_second_refusal_is_reported() -> None:
    client = Client(known())
    again = client.answered(client.send(), *challenge())
    client.answer(again, *challenge(nonce="n2"))
    assert client.side.codes == [407]
    client.side.assert_empty()


@pytest.mark.holds("R34", "A17")
def test_a_refusal_is_one_whatever_else_is_asked_for() -> None:
    """Else what was refused would be said once more, beside the answer to another realm."""
    client = Client(known(REALM, "other.example"))
    second = client.answered(client.send(), *challenge())
    client.answer(second, 407, challenge(nonce="n2")[1], challenge(realm="other.example")[1])
    assert client.side.codes == [407]
    client.side.assert_empty()


@pytest.mark.holds("R34")
def test_a_stale_nonce_is_replaced_once() -> None:
    client = Client(known())
    again = client.answered(client.send(), *challenge())
    third = client.answered(again, *challenge(nonce="n2", more="algorithm=SHA-256, stale=TRUE"))
    assert params(third)[0]["nonce"] == "n2"
    client.answer(third, *challenge(nonce="n3", more="algorithm=SHA-256, stale=true"))
    assert client.side.codes == [407]


@pytest.mark.parametrize(
    "credentials", [None, Known(), known("other.example"), known(secrets={"MD5": "0" * 32})], ids=str
)
def test_without_the_right_credentials_the_challenge_is_reported(credentials: Known | None) -> None:
    if credentials is not None:
        for credential in credentials.by_realm.values():
            if credential._secrets:
                credential._password = None
    client = Client(credentials)
    client.answer(client.send(), *challenge())
    assert client.side.codes == [407]
    client.side.assert_empty()


@pytest.mark.holds("R34")
@pytest.mark.parametrize("allowed", [False, True])
def test_md5_only_where_it_is_allowed(allowed: bool) -> None:
    client = Client(known(allow_md5=allowed))
    first = client.send()
    client.answer(first, *challenge(more="algorithm=MD5"))
    assert client.side.codes == ([] if allowed else [407])
    assert len(client.side.opening) == allowed


def test_a_secret_in_place_of_the_password() -> None:
    credentials = Known()
    secret = secret_of("SHA-256", "alice", REALM, "wonderland")
    credentials.by_realm[REALM] = Credential("alice", None, {"SHA-256": secret})
    client, clear = Client(credentials), Client(known())
    assert params(client.answered(client.send(call_id="c"), *challenge())) == params(
        clear.answered(clear.send(call_id="c"), *challenge())
    )


def test_two_proxies_and_the_peer_want_to_know() -> None:
    """Each answer stays in while the next one is added, with its nonce counted on."""
    client = Client(known("p1", "p2", "peer"))
    request = client.answered(client.send(), *challenge(realm="p1"))
    request = client.answered(request, *challenge(realm="p2"))
    request = client.answered(request, *challenge(401, realm="peer"))
    assert {each["realm"]: each["nc"] for each in params(request)} == {"p1": "00000003", "p2": "00000002"}
    assert [each["realm"] for each in params(request, "Authorization")] == ["peer"]
    client.answer(request, 200)
    assert client.side.codes == [200]


def test_several_challenges_in_one_answer() -> None:
    """RFC 3261 22.3: forks may each want something."""
    client = Client(known("p1", "p2"))
    code, first = challenge(realm="p1")
    request = client.answered(client.send(), code, first, challenge(realm="p2")[1], challenge(realm="unknown")[1])
    assert {each["realm"] for each in params(request)} == {"p1", "p2"}


def test_what_was_good_once_is_said_at_once_next_time() -> None:
    client = Client(known())
    client.answer(client.answered(client.send(), *challenge()), 200)
    assert params(client.send())[0]["nc"] == "00000002"
    other = client.send(target=Target("TCP", "other.example", 5060, None))
    assert params(other) == []  # another hop has not asked


def test_the_peer_has_asked_for_its_own_address() -> None:
    client = Client(known())
    client.answer(client.answered(client.send(), *challenge(401)), 200)
    assert params(client.send(), "Authorization")[0]["nc"] == "00000002"
    assert params(client.send(uri="sip:carol@b.example"), "Authorization") == []


def test_a_nonce_that_is_no_longer_good_costs_one_more_try() -> None:
    """Not all who restart say that it is stale."""
    client = Client(known())
    client.answer(client.answered(client.send(), *challenge()), 200)
    request = client.answered(client.send(), *challenge(nonce="n2"))
    assert (params(request)[0]["nonce"], params(request)[0]["nc"]) == ("n2", "00000001")
    client.answer(request, 200)
    assert client.side.codes == [200, 200]


def test_the_next_nonce() -> None:
    client = Client(known())
    request = client.answered(client.send(), *challenge(401))
    client.answer(request, 200, ("Authentication-Info", 'nextnonce="n9", qop=auth'))
    said = params(client.send(), "Authorization")[0]
    assert (said["nonce"], said["nc"]) == ("n9", "00000001")


def test_other_credentials_are_not_mixed_up() -> None:
    """What an earlier message proved with its own is not said for the endpoint's."""
    client = Client(known())
    client.answer(client.answered(client.send(), *challenge()), 200)
    client.record.credentials = known()
    assert params(client.send()) == []


def test_an_application_that_writes_its_own_credentials_is_left_alone() -> None:
    client = Client(known())
    own = ("Proxy-Authorization", 'Digest username="me"')
    request = client.send(headers=[own])
    client.answer(request, *challenge())
    assert client.side.codes == [407]


def test_time_counts_over_all_tries() -> None:
    client = Client(known())
    client.side.engine.send_request(0.0, make_request(), TARGET, "user", record=client.record, timeout=10.0)
    first = client.sent()
    client.now = 6.0
    client.answered(first, *challenge())
    client.side.engine.advance(10.0)
    assert [type(error).__name__ for error in client.side.errors] == ["OperationTimeoutException"]
    client.side.assert_empty()


def test_what_is_remembered_is_bounded() -> None:
    client = Client(known())
    for number in range(MAXIMUM_KNOWN + 10):
        client.answer(client.answered(client.send(uri=f"sip:{number}@b.example"), *challenge(401)), 200)
    assert len(client.record.known_answers) == MAXIMUM_KNOWN


# ---------------------------------------------------------------------- demanding it


class Server:
    """A side that demands it."""

    def __init__(self, wanted: DigestDemand, transport: str = "TCP") -> None:
        self.side = Side("b")
        self.record = make_record()
        self.record.demand = wanted
        self.side.directory.add(self.record)
        self.flow = FakeFlow(transport=transport)
        self.now = 0.0
        self.numbers = itertools.count(1)

    def take(self, *headers: tuple[str, str], method: str = "MESSAGE", body: bytes = b"") -> Response | None:
        """The answer of the server; None when the request was let in."""
        request = received(make_request(method, headers=headers, body=body, cseq=next(self.numbers)))
        before = len(self.side.delivered)
        self.side.engine.receive(self.now, self.flow, request)
        self.side.take()
        if len(self.side.delivered) > before:
            return None
        answer = self.side.last()
        assert isinstance(answer, Response)
        return answer


def proof(answer: Response, count: int = 1, *, password: str = "wonderland", user: str = "alice", **more: Any) -> Any:
    """What a client would say to that challenge."""
    helper = Client(Known())
    helper.record.credentials.by_realm[REALM] = Credential(user, password, allow_md5=True)  # type: ignore[union-attr]
    request = helper.send(body=more.get("body", b""))
    for _ in range(count):
        challenges = [(name, value) for name, value in answer.headers if name == "WWW-Authenticate"]
        request = helper.answered(request, 401, *challenges)
        if count > 1:
            helper.answer(request, 200)
            request = helper.send()
            said = request.headers.get("Authorization")
            if f"nc={count:08x}" in (said or ""):
                break
    return ("Authorization", request.headers.get("Authorization"))


def test_who_proves_it_is_let_in_and_known() -> None:
    server = Server(demand())
    answer = server.take()
    assert answer is not None
    assert answer.status_code == 401
    assert server.take(proof(answer)) is None
    (transaction,) = server.side.delivered
    assert transaction.request.authenticated_user == "alice"


@pytest.mark.parametrize("why", [{"password": "wrong"}, {"user": "bob"}, {"user": ""}])
def test_who_does_not_is_asked_again(why: dict[str, Any]) -> None:
    server = Server(demand())
    answer = server.take()
    assert answer is not None
    again = server.take(proof(answer, **why))
    assert again is not None
    assert again.status_code == 401
    assert "stale" not in (again.headers.get("WWW-Authenticate") or "")


def test_a_proof_is_good_once() -> None:
    server = Server(demand())
    said = proof(server.take())  # type: ignore[arg-type]
    assert server.take(said) is None
    again = server.take(said)
    assert again is not None
    assert "stale=true" in (again.headers.get("WWW-Authenticate") or "")


def test_a_nonce_lasts_for_a_while() -> None:
    server = Server(demand())
    answer = server.take()
    said = proof(answer)  # type: ignore[arg-type]
    server.now = LIFETIME + 1
    again = server.take(said)
    assert again is not None
    assert "stale=true" in (again.headers.get("WWW-Authenticate") or "")


def test_a_nonce_of_somebody_else_is_none() -> None:
    theirs = Server(DigestDemand(REALM, {"alice": Credential("alice", "wonderland")}, ["SHA-256"], "another key"))
    said = proof(theirs.take())  # type: ignore[arg-type]
    answer = Server(demand()).take(said)
    assert answer is not None
    assert answer.status_code == 401


def test_the_algorithms_that_are_offered() -> None:
    server = Server(demand(algorithms=("SHA-512-256", "SHA-256")))
    answer = server.take()
    assert answer is not None
    offered = [value for name, value in answer.headers if name == "WWW-Authenticate"]
    assert ["algorithm=SHA-512-256" in offered[0], "algorithm=SHA-256" in offered[1]] == [True, True]
    assert server.take(proof(answer)) is None


@pytest.mark.holds("R34")
def test_md5_is_not_taken_where_it_was_not_offered() -> None:
    weak = Server(demand(algorithms=("MD5",)))
    said = proof(weak.take())  # type: ignore[arg-type]
    assert weak.take(said) is None
    assert Server(demand()).take(proof(Server(demand(algorithms=("MD5",))).take())) is not None  # type: ignore[arg-type]


@pytest.mark.parametrize("excepted", [True, False])
def test_a_verified_certificate_is_enough_unless_it_is_not(excepted: bool) -> None:
    server = Server(demand(except_certificates=excepted), transport="TLS")
    assert (server.take() is None) is excepted


def test_counts_may_overtake_each_other_a_little() -> None:
    wanted = demand()
    nonce = wanted._nonce(0.0, "tag")
    good = [wanted._is_good(0.0, nonce, f"{count:08x}") for count in (3, 1, 2, 2, 70, 3, 7, 6, 0)]
    assert good == [True, True, True, False, True, False, True, False, False]


def test_what_is_remembered_of_nonces_is_bounded() -> None:
    """Those whose counts are forgotten are good no longer."""
    wanted = demand()
    nonces = [wanted._nonce(number / 1000, f"tag{number}") for number in range(MAXIMUM_NONCES + 2)]
    assert all(wanted._is_good(10.0, nonce, "00000001") for nonce in nonces)
    assert len(wanted._uses) == MAXIMUM_NONCES
    assert not wanted._is_good(10.0, nonces[0], "00000002")
    assert wanted._is_good(10.0, nonces[2], "00000002")


@pytest.mark.parametrize(
    "value",
    [
        "Basic abc",
        "Digest",
        'Digest realm="example.net"',
        'Digest realm="example.net", username="alice", nonce="x", uri="sip:b", response="y", qop=auth, nc=1, cnonce="c"',
        'Digest realm="example.net", username="alice", nonce="x", uri="sip:b", response="\u00e9", qop=auth, nc=00000001',
        'Digest realm="example.net", username="alice", algorithm=SHA-256, nonce="x", response="y"',
    ],
)
def test_credentials_that_are_none(value: str) -> None:
    answer = Server(demand()).take(("Authorization", value))
    assert answer is not None
    assert answer.status_code == 401


# ---------------------------------------------------------------------- whole calls


@pytest.mark.holds("R34")
def test_tokens_are_never_used_twice() -> None:
    server = Server(demand())
    nonces = {server.take().headers.get("WWW-Authenticate") for _ in range(10)}  # type: ignore[union-attr]
    assert len(nonces) == 10


@pytest.fixture
def world() -> World:
    """Each side demands it of the other one, for every request."""
    world = World()
    world.demand_digest()
    return world


def accept_every_offer(party: Any, session: Any, event: Any) -> None:
    if type(event).__name__ == "OfferReceived":
        session.accept_offer(party.world.now, event.transaction, ANSWER)
    elif type(event).__name__ == "RequestReceived":
        party.engine.respond(party.world.now, event.transaction, event.transaction.create_response(200))


def check_all_were_challenged(world: World, *methods: str) -> None:
    """Each of these methods went out, in the end with credentials; nobody was asked more than once for one number."""
    requests = [m for _, m in world.messages if isinstance(m, Request)]
    assert set(methods) <= {request.method for request in requests if "Authorization" in request.headers}
    for _, message in world.messages:
        assert not isinstance(message, Response) or message.status_code in (100, 180, 183, 200, 202, 401, 487)


def test_a_call_whose_every_request_is_authenticated(world: World) -> None:
    world.reactions.append(accept_every_offer)
    session, theirs = connected(world)
    acks = [m for _, m in world.messages if isinstance(m, Request) and m.method == "ACK" and m.cseq.number == 2]
    assert "Authorization" in acks[-1].headers  # RFC 3261 22.1: as in the INVITE
    for party, changed in ((world.bob, theirs), (world.alice, session)):
        assert party.do(changed.renegotiate, OFFER, ()).message.status_code == 200
        assert party.do(changed.send_request, "INFO", (), None).message.status_code == 200
    assert world.bob.do(theirs.terminate, ()).ends
    world.pass_time(100)
    check_all_were_challenged(world, "INVITE", "ACK", "INFO", "BYE")
    world.assert_over()


def test_a_call_that_is_taken_back_before_the_challenge_is_not_placed(world: World) -> None:
    """The CANCEL has waited for a provisional response, which is no longer needed."""
    world.held = []
    session, establish = world.alice.call()
    end = world.alice.do(session.terminate, ())
    world.release()
    assert establish.error is not None
    assert end.ends
    assert [m.method for _, m in world.messages if isinstance(m, Request)] == ["INVITE", "ACK"]
    world.pass_time(100)
    world.assert_over()


def test_a_call_that_is_taken_back_is_authenticated(world: World) -> None:
    """CANCEL is never challenged (RFC 3261 22.1)."""
    session, establish = world.alice.call()
    world.bob.do(world.bob.sessions[-1].send_provisional, 180, None, (), None, True)
    world.alice.do(session.terminate, ())
    assert establish.ends
    world.pass_time(100)
    cancels = [m for _, m in world.messages if isinstance(m, Request) and m.method == "CANCEL"]
    assert [(m.cseq.number, "Authorization" in m.headers) for m in cancels] == [(2, False)]
    check_all_were_challenged(world, "INVITE", "PRACK")
    world.assert_over()


@pytest.mark.parametrize("before", [MAXIMUM_PROOFS - 1, MAXIMUM_PROOFS])
def test_a_request_gets_so_many_proofs_looked_at_and_not_more(before: int) -> None:
    """Else a stranger's request could have its body hashed some hundred times."""
    server = Server(demand())
    asked = server.take()
    assert asked is not None
    good = proof(asked)
    answer = server.take(*[("Authorization", good[1].replace("alice", f"alice{n}")) for n in range(before)], good)
    assert (None if answer is None else answer.status_code) == (None if before < MAXIMUM_PROOFS else 401)
