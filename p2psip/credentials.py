"""User names and passwords for proxies and peers that ask for them (RFC 3261 22, RFC 7616, RFC 8760)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from p2psip import arguments
from p2psip.core.authentication import Credential
from p2psip.core.digest import ALGORITHMS

_HEXADECIMAL = re.compile(r"[0-9A-Fa-f]+")


def credential(
    user_name: str, password: str | None, secrets: Mapping[str, str] | None = None, *, allow_md5: bool = False
) -> Credential:
    """Who somebody is, checked.

    Raises:
        ValueError, TypeError: An argument.
    """
    arguments.text(user_name, "A user name")
    if not user_name:
        raise ValueError("A user name is empty.")
    if (password is None) == (secrets is None):
        raise ValueError("Give a password, or secrets in place of it.")
    if password is not None:
        if not isinstance(password, str):
            raise TypeError(f"A password is a str, not {type(password).__name__}.")
        try:
            password.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raise ValueError("The password cannot be written as UTF-8.") from None
        return Credential(user_name, password, allow_md5=allow_md5)
    known = {}
    for algorithm, secret in dict(secrets or {}).items():
        if algorithm not in ALGORITHMS:
            raise ValueError(f"{algorithm!r} is none of the algorithms {', '.join(ALGORITHMS)}.")
        length = 32 if algorithm == "MD5" else 64
        if not isinstance(secret, str) or len(secret) != length or _HEXADECIMAL.fullmatch(secret) is None:
            raise ValueError(f"The secret for {algorithm} is not {length} hexadecimal digits.")
        known[algorithm] = secret.lower()
    if not known:
        raise ValueError("There are no secrets: give one for each algorithm that is to be used.")
    return Credential(user_name, None, known, allow_md5=allow_md5)


class Credentials:
    """What challenges are answered with, by realm. Usable from any thread; a change counts from the next challenge on.

    Passwords are kept in memory, and never shown, logged or sent: what goes out is a digest of them.
    """

    __slots__ = ("_by_realm",)

    def __init__(self) -> None:
        self._by_realm: dict[str | None, Credential] = {}

    def add(
        self,
        realm: str | None,
        user_name: str,
        password: str | None = None,
        *,
        secrets: Mapping[str, str] | None = None,
        allow_md5: bool = False,
    ) -> None:
        """Have challenges of that realm answered, in place of what was known for it.

        Args:
            realm: As the challenge names it, letter for letter; None for every realm that has nothing of its own. Give a
                realm where you can: with None whoever asks gets an answer, from which a weak password can be guessed.
            user_name: As the proxy or the peer knows it.
            password: In clear.
            secrets: In place of the password, by algorithm, the hash of ``user:realm:password`` in hexadecimal digits
                (H(A1) of RFC 7616 3.4.2, without ``-sess``). Needs a realm.
            allow_md5: Answer those who offer nothing better than MD5 (RFC 8760 2.3 advises against it).

        Raises:
            ValueError, TypeError: An argument.
        """
        if realm is not None:
            arguments.text(realm, "A realm")
        if secrets is not None and realm is None:
            raise ValueError("Secrets are good for one realm: name it.")
        self._by_realm[realm] = credential(user_name, password, secrets, allow_md5=allow_md5)

    def remove(self, realm: str | None) -> None:
        """Answer that realm no more. It is no error if nothing is known for it."""
        self._by_realm.pop(realm, None)

    @property
    def realms(self) -> tuple[str | None, ...]:
        """For which realms there is something; None among them for any other realm."""
        return tuple(self._by_realm)

    def find(self, realm: str) -> Credential | None:
        """What is known for the realm."""
        return self._by_realm.get(realm) or self._by_realm.get(None)

    def __repr__(self) -> str:
        return f"<Credentials for {', '.join('any realm' if realm is None else repr(realm) for realm in self.realms)}>"
