"""Demanding digest authentication of peers (RFC 3261 22.2, RFC 7616, RFC 8760)."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from p2psip.core.authentication import Credential
from p2psip.core.digest import AUTHENTICATION, challenge_text, known_algorithm, response_digest
from p2psip.core.uas import Refusal
from p2psip.errors import MessageParsingException
from p2psip.message import Request, parse_field

if TYPE_CHECKING:
    from p2psip.core.tokens import Tokens
    from p2psip.core.transaction import ServerTransaction

LIFETIME = 300.0
"""Seconds that a nonce is good for; then the same answer is asked for with another one (``stale``)."""
MAXIMUM_NONCES = 10_000
"""Nonces whose counts are kept; when there are more, the oldest are good no longer."""
MAXIMUM_PROOFS = 4
"""Authorization fields of a request that are looked at: each costs the hashes of its proof, the one of the whole body with
``auth-int``. One for each realm is usual."""
WINDOW = 64
"""How far counts of one nonce may overtake each other, on several connections."""

_NONCE = re.compile(r"([0-9a-f]{1,16})-([^-]{1,64})-([0-9a-f]{32})")
_COUNT = re.compile(r"[0-9A-Fa-f]{8}")


class _Use:
    """Which counts of one nonce have been seen."""

    __slots__ = ("_highest", "_seen", "issued")

    def __init__(self, issued: float) -> None:
        self.issued = issued
        self._highest = 0
        self._seen = 0  # bit n: the count n below the highest

    def is_new(self, count: int) -> bool:
        """It was not seen before; from now on it was."""
        if count > self._highest:
            self._seen = (self._seen << min(count - self._highest, WINDOW) | 1) & ((1 << WINDOW) - 1)
            self._highest = count
            return True
        bit = 1 << (self._highest - count)
        if count < 1 or bit >> WINDOW or self._seen & bit:
            return False
        self._seen |= bit
        return True


class DigestDemand:
    """What an endpoint wants of those who send it requests.

    Args:
        realm: What the challenge says.
        users: Who is let in, by name. Looked at for each request; it may change.
        algorithms: One challenge for each, best first.
        key: A secret of this endpoint's own, which its nonces are known by.
        except_certificates: Peers that have shown a verified certificate need no more.
        qop: ``auth`` or ``auth-int``; the other one is not accepted.
    """

    def __init__(
        self,
        realm: str,
        users: Mapping[str, Credential],
        algorithms: Sequence[str],
        key: str,
        *,
        except_certificates: bool = True,
        qop: str = AUTHENTICATION,
    ) -> None:
        self.realm = realm
        self._users = users
        self._algorithms = tuple(algorithms)
        self._key = key.encode()
        self._except_certificates = except_certificates
        self._qop = qop
        self._uses: OrderedDict[str, _Use] = OrderedDict()
        self._forgotten = -1.0
        """When the newest nonce was issued whose counts are known no longer."""

    def refusal(self, now: float, transaction: ServerTransaction, tokens: Tokens) -> Refusal | None:
        """Why the request is not let in; None when it is, and then it says whose it is."""
        if self._except_certificates and transaction.flow.is_authenticated:
            return None
        is_stale = False
        for params in _credentials_of(transaction.request):
            if params.get("realm") != self.realm:
                continue
            user = self._prover(transaction.request, params)
            if user is None:
                continue
            if self._is_good(now, params.get("nonce", ""), params["nc"]):
                transaction.request.authenticated_user = user
                return None
            is_stale = True
        nonce = self._nonce(now, tokens.tag())
        return Refusal(
            401,
            [
                ("WWW-Authenticate", challenge_text(self.realm, nonce, algorithm, self._qop, stale=is_stale))
                for algorithm in self._algorithms
            ],
        )

    def _prover(self, request: Request, params: Mapping[str, str]) -> str | None:
        """The user who wrote that, whatever the nonce is worth.

        The URI is taken as it is written there: a proxy may have changed the Request-URI, and nonces have counts against
        those who would use what they have overheard for something else.
        """
        algorithm = known_algorithm(params.get("algorithm", "MD5"))
        qop, count = params.get("qop", "").lower(), params.get("nc", "")
        if algorithm is None or algorithm not in self._algorithms or qop != self._qop or not _COUNT.fullmatch(count):
            return None
        name = params.get("username", "")
        credential = self._users.get(name)
        # Somebody who is not there takes as long to find out about.
        secret = (credential or _NOBODY).secret(algorithm, self.realm)
        if secret is None:
            return None
        proof = response_digest(
            algorithm,
            secret,
            nonce=params.get("nonce", ""),
            method=request.method,
            uri=params.get("uri", ""),
            qop=qop,
            nc=count,
            cnonce=params.get("cnonce", ""),
            body=request.body,
        )
        is_right = hmac.compare_digest(proof.encode(), params.get("response", "").lower().encode("utf-8", "replace"))
        return name if is_right and credential is not None else None

    # ------------------------------------------------------------------ nonces

    def _nonce(self, now: float, tag: str) -> str:
        issued = f"{int(now * 1000):x}"
        return f"{issued}-{tag}-{self._mark(issued, tag)}"

    def _mark(self, issued: str, tag: str) -> str:
        return hmac.new(self._key, f"{issued}-{tag}-{self.realm}".encode(), hashlib.sha256).hexdigest()[:32]

    def _is_good(self, now: float, nonce: str, count: str) -> bool:
        """It is ours, not too old, and was not used with that count before."""
        match = _NONCE.fullmatch(nonce)
        if match is None or not hmac.compare_digest(self._mark(match[1], match[2]), match[3]):
            return False
        issued = int(match[1], 16) / 1000
        if now - issued > LIFETIME:
            self._uses.pop(nonce, None)
            return False
        use = self._uses.get(nonce)
        if use is None:
            if issued <= self._forgotten:
                return False
            use = self._uses[nonce] = _Use(issued)
            if len(self._uses) > MAXIMUM_NONCES:
                self._forgotten = max(self._forgotten, self._uses.popitem(last=False)[1].issued)
        return use.is_new(int(count, 16))


_NOBODY = Credential("", "", allow_md5=True)


def _credentials_of(request: Request) -> list[dict[str, str]]:
    """What the first Authorization fields say, as far as they can be read."""
    found = []
    for value in request.headers.get_all("Authorization")[:MAXIMUM_PROOFS]:
        try:
            scheme, params = parse_field("Authorization", value)
        except MessageParsingException:
            continue
        if scheme.lower() == "digest":
            found.append(params)
    return found
