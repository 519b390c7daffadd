"""Answering the challenges of proxies and peers (RFC 3261 22, RFC 7616, RFC 8760).

A request that was answered 401 or 407 is sent once more with what was asked for; what a nonce was good for once is
sent along with later requests of the same call, to the same proxy or to the same address, which saves them the detour.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from p2psip.core.digest import Challenge, can_be_repeated, challenges_of, choose, credentials_text, secret_of
from p2psip.errors import AuthenticationFailureReason, MessageParsingException
from p2psip.message import Request, Response, parse_field

MAXIMUM_TRIES = 2
"""Answers to one realm for one request: the second only where the nonce was too old."""
MAXIMUM_REALMS = 8
"""Answered for one request, and remembered for one place: with credentials for any realm, whoever asks for one after the
other would never come to an end."""
MAXIMUM_KNOWN = 1024

_FIELDS = {401: ("WWW-Authenticate", "Authorization"), 407: ("Proxy-Authenticate", "Proxy-Authorization")}
CREDENTIAL_FIELDS = tuple(answer for _, answer in _FIELDS.values())


class Credential:
    """Who somebody is in one realm. Never shown: it has no readable form.

    Attributes:
        user_name: As the server knows it.
        allow_md5: Answer challenges for which nothing better than MD5 will do.
    """

    __slots__ = ("_password", "_secrets", "allow_md5", "user_name")

    def __init__(
        self,
        user_name: str,
        password: str | None,
        secrets: dict[str, str] | None = None,
        *,
        allow_md5: bool = False,
    ) -> None:
        """``secrets``: in place of the password, by algorithm, what :func:`p2psip.core.digest.secret_of` makes of it."""
        self.user_name = user_name
        self.allow_md5 = allow_md5
        self._password = password
        self._secrets = secrets or {}

    def secret(self, algorithm: str, realm: str) -> str | None:
        """What proves it; None where nothing is known for this algorithm."""
        if self._password is not None:
            return secret_of(algorithm, self.user_name, realm, self._password)
        return self._secrets.get(algorithm.removesuffix("-sess"))

    def __repr__(self) -> str:
        return f"<Credential of {self.user_name}>"


class CredentialSource(Protocol):
    """Who knows the user's credentials; asked on the engine's thread."""

    def find(self, realm: str) -> Credential | None: ...


class Answer:
    """A challenge that we can answer, as often as its nonce lasts."""

    __slots__ = ("_count", "_nonce", "challenge", "credential", "field")

    def __init__(self, field: str, challenge: Challenge, credential: Credential) -> None:
        self.field = field
        self.challenge = challenge
        self.credential = credential
        self._nonce = challenge.nonce
        self._count = 0

    def renew(self, nonce: str) -> None:
        """The server has given the next nonce (RFC 7616 3.5)."""
        self._nonce, self._count = nonce, 0

    def write(self, request: Request, cnonce: str) -> str:
        """The value of the field for that request."""
        self._count += 1
        secret = self.credential.secret(self.challenge.algorithm, self.challenge.realm)
        assert secret is not None
        return credentials_text(
            self.challenge,
            self.credential.user_name,
            secret,
            method=request.method,
            uri=request.uri,
            body=request.body,
            nc=self._count,
            cnonce=cnonce,
            nonce=self._nonce,
        )


class _Tried(NamedTuple):
    answer: Answer
    tries: int
    """0: it is one of an earlier request."""


_Place = tuple[str, str]
"""The field and the realm."""


class Unmet(NamedTuple):
    """Why a challenge is not answered (any more).

    Attributes:
        reason: Nothing is known for the realm, what is known was refused, or nothing that it offers may be used.
        realm: Empty where no challenge could be read.
        user_name: What it was tried with, if it was.
    """

    reason: AuthenticationFailureReason
    realm: str
    user_name: str = ""


def unmet(response: Response, request: Request, credentials: CredentialSource | None) -> Unmet | None:
    """What stands against answering that 401 or 407 to the request, as it was sent; None where nothing does."""
    field = _FIELDS[response.status_code][1]
    tried = {params.get("realm"): params.get("username", "") for params in _params(request, field)}
    challenges = _challenges(response)
    if not challenges:
        asked = _FIELDS[response.status_code][0] in response.headers
        return Unmet(AuthenticationFailureReason.NO_COMMON_PROTOCOLS, "") if asked else None
    known = {each.realm: None if credentials is None else credentials.find(each.realm) for each in challenges}
    for realm, credential in known.items():
        if credential is None and realm not in tried:
            return Unmet(AuthenticationFailureReason.MISSING_CREDENTIALS, realm)
    for realm, credential in known.items():
        if realm in tried:
            name = tried[realm] if credential is None else credential.user_name
            return Unmet(AuthenticationFailureReason.INVALID_CREDENTIALS, realm, name)
    for realm, credential in known.items():
        offered = [each for each in challenges if each.realm == realm]
        if credential is not None and _choose(offered, credential) is None:
            return Unmet(AuthenticationFailureReason.NO_COMMON_PROTOCOLS, realm, credential.user_name)
    return None


def _challenges(response: Response) -> list[Challenge]:
    asked = _FIELDS[response.status_code][0].lower()
    return challenges_of(value for name, value in response.headers if name.lower() == asked)


def _params(request: Request, field: str) -> Iterator[Mapping[str, str]]:
    for name, value in request.headers:
        if name.lower() == field.lower():
            try:
                yield parse_field(name, value).params
            except MessageParsingException:
                pass


class Attempt:
    """What one request has answered so far. Made for the first challenge, or because an earlier one will come again."""

    __slots__ = ("_answers", "_unproven")

    def __init__(self, known: Iterable[Answer] = ()) -> None:
        self._unproven: dict[_Place, Answer] = {}
        self._answers: dict[_Place, _Tried] = {
            (answer.field, answer.challenge.realm): _Tried(answer, 0) for answer in known
        }

    def take(self, response: Response, credentials: CredentialSource) -> bool:
        """Read a 401 or 407.

        Returns:
            False where nothing can be said that was not said before.
        """
        field = _FIELDS[response.status_code][1]
        by_realm: dict[str, list[Challenge]] = {}
        for each in _challenges(response):
            by_realm.setdefault(each.realm, []).append(each)
        fresh: dict[_Place, Answer] = {}
        for realm, challenges in by_realm.items():
            tried = self._answers.get((field, realm))
            credential = credentials.find(realm)
            challenge = None if credential is None else _choose(challenges, credential)
            if challenge is None or credential is None:
                continue
            if (tried is None or not tried.tries) and self._asked >= MAXIMUM_REALMS:
                continue
            if tried is not None and tried.tries and (tried.tries >= MAXIMUM_TRIES or not challenge.stale):
                return False  # refused: the same again would be refused again (RFC 3261 22.1)
            answer = Answer(field, challenge, credential)
            self._answers[field, realm] = _Tried(answer, 1 if tried is None else tried.tries + 1)
            fresh[field, realm] = answer
        self._unproven.update(fresh)
        return bool(fresh)

    def proven(self) -> list[Answer]:
        """What it has answered since it was last asked, to be called when it was let in: with a nonce that was used by
        nobody else so far, because servers take counts that come in another order for a replay."""
        proven, self._unproven = self._unproven, {}
        return list(proven.values())

    @property
    def _asked(self) -> int:
        """How many realms this request was asked for."""
        return sum(tried.tries > 0 for tried in self._answers.values())

    def write(self, request: Request, cnonce: str) -> None:
        """Put all of it into the request, in place of what stood there."""
        for field in CREDENTIAL_FIELDS:
            request.headers.remove(field)
        for tried in self._answers.values():
            request.headers.add(tried.answer.field, tried.answer.write(request, cnonce))

    def refused(self, response: Response) -> list[Answer]:
        """What was said to those who challenge once more."""
        field = _FIELDS[response.status_code][1]
        realms = {challenge.realm for challenge in _challenges(response)}
        return [tried.answer for (name, realm), tried in self._answers.items() if name == field and realm in realms]

    def accepted(self, response: Response) -> None:
        """A final response that is no challenge: it may bring the next nonce, of one realm that it does not name."""
        for name, field in (
            ("Authentication-Info", "Authorization"),
            ("Proxy-Authentication-Info", "Proxy-Authorization"),
        ):
            text = response.headers.get(name)
            answers = [tried.answer for place, tried in self._answers.items() if place[0] == field]
            if text is None or len(answers) != 1:
                continue
            try:
                nonce = parse_field("Authentication-Info", text).get("nextnonce")
            except MessageParsingException:
                continue
            if nonce and can_be_repeated(nonce):
                answers[0].renew(nonce)


def _choose(challenges: list[Challenge], credential: Credential) -> Challenge | None:
    """Which of these, all of one realm, it can answer best."""
    usable = [each for each in challenges if credential.secret(each.algorithm, each.realm) is not None]
    return choose(usable, credential.allow_md5)


class KnownAnswers:
    """What one endpoint has answered, by where it will be asked for again."""

    def __init__(self) -> None:
        self._known: OrderedDict[object, dict[_Place, Answer]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def remember(self, request: Request, target: Any, answers: Iterable[Answer]) -> None:
        """That request was let in with them."""
        for answer in answers:
            for key in _keys(answer.field, request, target):
                known = self._known.setdefault(key, {})
                known.pop((answer.field, answer.challenge.realm), None)
                known[answer.field, answer.challenge.realm] = answer
                if len(known) > MAXIMUM_REALMS:
                    del known[next(iter(known))]
                self._known.move_to_end(key)
        while len(self._known) > MAXIMUM_KNOWN:
            self._known.popitem(last=False)

    def forget(self, request: Request, target: Any, answers: Iterable[Answer]) -> None:
        """They were refused: some servers lock those out who are wrong too often."""
        for answer in answers:
            for key in _keys(answer.field, request, target):
                known = self._known.get(key, {})
                if known.pop((answer.field, answer.challenge.realm), None) is not None and not known:
                    del self._known[key]

    def find(self, request: Request, target: Any, credentials: CredentialSource) -> list[Answer]:
        """What will be asked of that request, probably."""
        if not self._known:
            return []
        found: dict[_Place, Answer] = {}
        for field in CREDENTIAL_FIELDS:
            for key in _keys(field, request, target):
                found = self._known.get(key, {}) | found
        return [answer for answer in found.values() if credentials.find(answer.challenge.realm) is answer.credential]


def _keys(field: str, request: Request, target: Any) -> list[object]:
    """The call; else for a proxy the hop, and for a peer its address."""
    keys: list[object] = [(field, request.call_id)]
    if field == "Authorization":
        keys.append((field, request.uri))
    elif not isinstance(target, Exception):
        keys.append((field, target.host, target.port))
    return keys
