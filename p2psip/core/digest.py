"""Digest authentication: challenges, the arithmetic, and what is written in answer (RFC 7616, RFC 8760).

Nothing here knows who has which password, or which nonce was used how often.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

from p2psip.errors import MessageParsingException
from p2psip.message import is_token, parse_field, quoted, split_list
from p2psip.message.grammar import first_word

_HASHES = {"SHA-512-256": "sha512_256", "SHA-256": "sha256", "MD5": "md5"}
_HASHES = {name: hash_ for name, hash_ in _HASHES.items() if hash_ in hashlib.algorithms_available}  # OpenSSL's affair
ALGORITHMS = tuple(_HASHES)
"""Best first. Each exists with ``-sess`` as well."""

INTEGRITY = "auth-int"
AUTHENTICATION = "auth"


class Challenge(NamedTuple):
    """What a server or a proxy wants to be answered.

    Attributes:
        algorithm: As in ``ALGORITHMS``, perhaps with ``-sess``.
        is_named: The algorithm was named, and not left out for MD5.
        qop: What it offers, in its order; empty in a challenge of RFC 2069.
        stale: The answer before was right but for its nonce.
        userhash: The user's name may be sent as a hash.
    """

    realm: str
    nonce: str
    algorithm: str
    is_named: bool
    qop: tuple[str, ...]
    opaque: str | None
    stale: bool
    userhash: bool

    @classmethod
    def parse(cls, text: str) -> Challenge | None:
        """The challenge; None for another scheme, an algorithm that is not known, and what cannot be answered."""
        try:
            scheme, params = parse_field("WWW-Authenticate", text)
        except MessageParsingException:
            return None
        algorithm = known_algorithm(params.get("algorithm", "MD5"))
        if scheme.lower() != "digest" or algorithm is None or "realm" not in params or "nonce" not in params:
            return None
        if not all(map(can_be_repeated, (params["realm"], params["nonce"], params.get("opaque", "")))):
            return None
        offered = tuple(word.strip(" \t").lower() for word in params.get("qop", "").split(",") if word.strip(" \t"))
        if offered and AUTHENTICATION not in offered and INTEGRITY not in offered:
            return None
        return cls(
            params["realm"],
            params["nonce"],
            algorithm,
            "algorithm" in params,
            offered,
            params.get("opaque"),
            params.get("stale", "").lower() == "true",
            params.get("userhash", "").lower() == "true",
        )

    @property
    def is_weak(self) -> bool:
        """MD5, which nobody should have to rely on any more (RFC 8760 2.3)."""
        return self.algorithm.startswith("MD5")


def can_be_repeated(text: str) -> bool:
    """What a server has said may stand in a header field of ours: a NUL, which it may have sent as a quoted-pair, may
    not."""
    return "\0" not in text


def known_algorithm(name: str) -> str | None:
    """The name as it is written here; None for one that is not known."""
    name = name.upper()
    base = name.removesuffix("-SESS")
    if base not in _HASHES:
        return None
    return base if base == name else f"{base}-sess"


def split_challenges(text: str) -> list[str]:
    """The challenges of one header field: several may stand there, with their parameters all behind commas."""
    found: list[str] = []
    for part in split_list(text):
        word, rest = first_word(part)
        if rest and is_token(word) and not rest.startswith("="):
            found.append(part)
        elif found:
            found[-1] += f", {part}"
        else:
            raise MessageParsingException("A challenge does not begin with its scheme.")
    return found


def challenges_of(values: Iterable[str]) -> list[Challenge]:
    """What these header fields ask for, in their order, as far as it can be answered."""
    found = []
    for value in values:
        try:
            found += [Challenge.parse(text) for text in split_challenges(value)]
        except MessageParsingException:
            pass
    return [challenge for challenge in found if challenge is not None]


def choose(challenges: Iterable[Challenge], allow_md5: bool) -> Challenge | None:
    """The one to be answered of several for one realm: the first, but MD5 only where it is allowed and there is nothing
    better (RFC 8760 2.4)."""
    good = [challenge for challenge in challenges if allow_md5 or not challenge.is_weak]
    return min(good, key=lambda challenge: challenge.is_weak, default=None)


# ---------------------------------------------------------------------- arithmetic


def hashed(algorithm: str, text: str | bytes) -> str:
    """The hash of the algorithm's name, in hexadecimal digits. Text is UTF-8."""
    data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    return hashlib.new(_HASHES[algorithm.removesuffix("-sess")], data, usedforsecurity=False).hexdigest()


def secret_of(algorithm: str, user_name: str, realm: str, password: str) -> str:
    """What a server may keep in place of the password: good for this realm only (RFC 7616 3.4.2, H(A1) without -sess)."""
    return hashed(algorithm, f"{user_name}:{realm}:{password}")


def response_digest(
    algorithm: str,
    secret: str,
    *,
    nonce: str,
    method: str,
    uri: str,
    qop: str | None = None,
    nc: str | None = None,
    cnonce: str | None = None,
    body: bytes = b"",
) -> str:
    """The proof (RFC 7616 3.4.1). With ``method`` empty it is the server's own, for ``rspauth`` (3.5).

    Args:
        secret: From :func:`secret_of`.
        qop: None in the way of RFC 2069.
    """
    a1 = hashed(algorithm, f"{secret}:{nonce}:{cnonce or ''}") if algorithm.endswith("-sess") else secret
    a2 = f"{method}:{uri}"
    if qop == INTEGRITY:
        a2 += f":{hashed(algorithm, body)}"
    middle = nonce if qop is None else f"{nonce}:{nc}:{cnonce or ''}:{qop}"
    return hashed(algorithm, f"{a1}:{middle}:{hashed(algorithm, a2)}")


# ---------------------------------------------------------------------- what is written


def credentials_text(
    challenge: Challenge,
    user_name: str,
    secret: str,
    *,
    method: str,
    uri: str,
    body: bytes,
    nc: int,
    cnonce: str,
    nonce: str | None = None,
) -> str:
    """The value of Authorization or Proxy-Authorization.

    Args:
        nc: How often the nonce has been used with this one.
        nonce: In place of the challenge's: one that the server gave meanwhile.

    RFC 7616 3.4.
    """
    nonce = challenge.nonce if nonce is None else nonce
    qop = next((word for word in (AUTHENTICATION, INTEGRITY) if word in challenge.qop), None)
    count = f"{nc:08x}"
    algorithm = challenge.algorithm
    proof = response_digest(
        algorithm, secret, nonce=nonce, method=method, uri=uri, qop=qop, nc=count, cnonce=cnonce, body=body
    )
    named = user_name
    if challenge.userhash:
        named = hashed(algorithm, f"{user_name}:{challenge.realm}")
    parts = [
        f"username={quoted(named)}",
        f"realm={quoted(challenge.realm)}",
        f"nonce={quoted(nonce)}",
        f"uri={quoted(uri)}",
        f'response="{proof}"',
    ]
    if challenge.is_named:
        parts.append(f"algorithm={algorithm}")
    if qop is not None:
        parts += [f"qop={qop}", f"nc={count}"]
    if qop is not None or algorithm.endswith("-sess"):
        parts.append(f"cnonce={quoted(cnonce)}")
    if challenge.opaque is not None:
        parts.append(f"opaque={quoted(challenge.opaque)}")
    if challenge.userhash:
        parts.append("userhash=true")
    return "Digest " + ", ".join(parts)


def challenge_text(realm: str, nonce: str, algorithm: str, qop: str, *, stale: bool) -> str:
    """The value of WWW-Authenticate (RFC 7616 3.3)."""
    text = f"Digest realm={quoted(realm)}, nonce={quoted(nonce)}, algorithm={algorithm}, qop={quoted(qop)}"
    return text + ", stale=true" if stale else text
