"""Who an endpoint is to those who ask, whom it asks itself (RFC 3261 22, RFC 7616, RFC 8760), and whom it believes."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence

from p2psip import arguments
from p2psip.core.digest import ALGORITHMS
from p2psip.core.digest_demand import DigestDemand
from p2psip.core.directory import EndpointRecord
from p2psip.credentials import Credentials, credential
from p2psip.domains import DomainSet
from p2psip.enums import SenderPolicy


class Admission:
    """The part of an endpoint that knows credentials and demands them, and whom it takes requests from.

    Attributes:
        credentials: What challenges of proxies and peers are answered with, for everything that this endpoint sends.
    """

    _record: EndpointRecord

    def __init__(self) -> None:
        self._record.credentials = self.credentials = Credentials()
        self._trusted_peers = DomainSet("trusted_peers", self._trust)

    @property
    def sender_policy(self) -> SenderPolicy:
        """Whose requests outside of sessions and subscriptions are taken: ``ANY``, the default, leaves that to the
        handlers, which are told by ``is_sender_authenticated``.

        With ``CERTIFIED`` a request is answered 403 before any handler sees it, unless the domain in its From is one that
        the peer's verified certificate carries, or its sender has proved a user name by a digest, or one of the
        ``trusted_peers`` asserts an identity. Over TCP nobody has a certificate. A digest is asked for first where one is
        demanded; peers with a certificate are asked for one with ``except_certificates=False`` only.

        Settable at any time; counts for requests that come later. Does not block.

        Raises:
            TypeError: Not a SenderPolicy.
        """
        return self._record.sender_policy

    @sender_policy.setter
    def sender_policy(self, value: SenderPolicy) -> None:
        self._record.sender_policy = arguments.instance(value, SenderPolicy, "sender_policy")

    @property
    def trusted_peers(self) -> DomainSet:
        """The domains whose peers are believed when they say who sent a request (P-Asserted-Identity, RFC 3325): proxies
        that authenticate their users. Empty, the default, means nobody.

        Set-like: ``add``, ``discard``, or assign a list. ``.example.com`` means every name that ends so. The peer's
        verified certificate has to carry one of them; so over TCP nobody is believed. Counts at once. Trust only who
        removes what its own peers assert. The library never sends P-Asserted-Identity by itself.

        Raises:
            ValueError, TypeError: What is assigned is no list of domains.
        """
        return self._trusted_peers

    @trusted_peers.setter
    def trusted_peers(self, domains: Iterable[str]) -> None:
        self._trusted_peers.replace(domains)

    def _trust(self, domains: frozenset[str]) -> None:
        self._record.trusted_peers = domains

    def require_digest(
        self,
        realm: str,
        users: Mapping[str, str | Mapping[str, str]],
        *,
        algorithms: Sequence[str] = ("SHA-256",),
        qop: str = "auth",
        except_certificates: bool = True,
    ) -> None:
        """From now on let only those in who prove by a digest that they know a password; all others are answered 401.

        That goes for each request to this endpoint, outside of dialogs and in them, but for ACK and CANCEL. Who it was
        says ``authenticated_user`` of the request. Another call takes the place of the one before. Does not block.

        Who asks the same connection manager for somebody who is not here is answered 401 as well, so that strangers do
        not learn who is; those who prove who they are get the 404.

        Args:
            realm: What those who ask are told that the password is for; the domain, as a rule.
            users: Passwords by user name; or in place of a password, by algorithm, the hash of
                ``user:realm:password`` in hexadecimal digits. Copied: to change it, call this again.
            algorithms: What may be answered with, best first: ``"SHA-512-256"``, ``"SHA-256"``, and ``"MD5"`` for old
                phones only (RFC 8760 2.3). A challenge goes out for each.
            qop: ``"auth"``, or ``"auth-int"``, which proves the body as well and which few understand.
            except_certificates: Peers that have shown a certificate which was verified need no password. False asks
                them as well.

        Raises:
            ValueError, TypeError: An argument.
        """
        arguments.text(realm, "A realm")
        if not realm:
            raise ValueError("A realm is empty.")
        if not isinstance(users, Mapping):
            raise TypeError(f"Users are a mapping of names to passwords, not {type(users).__name__}.")
        wanted = (algorithms,) if isinstance(algorithms, str) else tuple(algorithms)
        if not wanted or not set(wanted) <= set(ALGORITHMS):
            raise ValueError(f"The algorithms are some of {', '.join(ALGORITHMS)}, not {algorithms!r}.")
        if qop not in ("auth", "auth-int"):
            raise ValueError(f'qop is "auth" or "auth-int", not {qop!r}.')
        known = {
            name: credential(name, proof) if isinstance(proof, str) else credential(name, None, proof)
            for name, proof in users.items()
        }
        key = secrets.token_hex(16)
        self._record.demand = DigestDemand(
            realm, known, wanted, key, except_certificates=bool(except_certificates), qop=qop
        )

    def require_no_digest(self) -> None:
        """Let everybody in again. It is no error if that was never changed."""
        self._record.demand = None
