"""The connection manager that most applications use: mutual TLS, with a certificate from a store or from files."""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Iterable
from typing import Any, TypeVar

from p2psip import arguments
from p2psip.config import ManagerSettings
from p2psip.domains import DomainSet
from p2psip.enums import SipTransportType
from p2psip.errors import RealTimeInvalidOperationException
from p2psip.managers import RealTimeServerConnectionManager
from p2psip.net.certificates import CertificateStore, LocalCertificate, TrustAnchors
from p2psip.net.given import ResolverNames
from p2psip.net.tls import TlsContexts

TrustedRoots = str | os.PathLike[str] | Iterable[Any] | None
SerialNumber = int | str | bytes

_Self = TypeVar("_Self", bound="RealTimeServerTlsConnectionManager")


class RealTimeServerTlsConnectionManager(RealTimeServerConnectionManager):
    """Listens on TLS and connects over TLS, both sides verified; over TCP where a caller asks for it.

    Args:
        certificate_issuer_name: Who issued our certificate: an RFC 4514 name, or just the issuer's common name.
        certificate_serial_number: Its serial number: int, hex text, or bytes as viewers show them.
        local_host: The name or address that Via and Contact bear; None means the certificate's first identity.
        certificate_store: A CertificateStore or its folder; None means ``CertificateStore.default()``.
        trusted_roots: File, folder or list of certificates that peers are verified with; ``"system"`` the system's
            (for outgoing connections only); None means the store's ``trusted`` folder.
        need_mutual_tls: Whether peers that connect must show a certificate that is trusted.
        revocation: ``"available"`` checks issuers that have a CRL among the trusted roots, ``"strict"`` demands one
            for each issuer, ``"off"`` checks none.
        allow_common_name: Take the common name of a certificate that has no alternative names (RFC 5922 7.1).
        minimum_tls_version: TLS 1.2 or 1.3.
        key_log_file: Where session keys are written, for a debugger such as Wireshark; None (nowhere) by default.
        settings: Timers and limits, and whether keys that other users can read are refused (``strict_key_files``).
        resolver: Names that are known here, for tests and labs; as for RealTimeServerTcpConnectionManager.

    Raises:
        TlsFailureException: The certificate is not there, or cannot be used; the sentence says what the store holds.
        ValueError, TypeError: An argument.
    """

    transport = SipTransportType.TLS

    def __init__(
        self,
        certificate_issuer_name: str,
        certificate_serial_number: int | str | bytes,
        *,
        local_host: str | None = None,
        certificate_store: CertificateStore | str | os.PathLike[str] | None = None,
        trusted_roots: TrustedRoots = None,
        need_mutual_tls: bool = True,
        revocation: str = "available",
        allow_common_name: bool = False,
        minimum_tls_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2,
        key_log_file: str | os.PathLike[str] | None = None,
        settings: ManagerSettings | None = None,
        resolver: ResolverNames | None = None,
    ) -> None:
        store = _store(certificate_store)
        self._source: Any = (store, certificate_issuer_name, certificate_serial_number)
        self._initialize(
            store.find(certificate_issuer_name, certificate_serial_number, strict=_is_strict(settings)),
            local_host,
            store.trusted if trusted_roots is None else trusted_roots,
            need_mutual_tls,
            {
                "revocation": revocation,
                "allow_common_name": allow_common_name,
                "minimum_version": minimum_tls_version,
                "key_log_file": key_log_file,
            },
            settings,
            resolver,
        )

    @classmethod
    def from_files(
        cls: type[_Self],
        certificate: str | os.PathLike[str],
        key: str | os.PathLike[str] | None = None,
        *,
        password: str | bytes | None = None,
        trusted_roots: TrustedRoots,
        local_host: str | None = None,
        need_mutual_tls: bool = True,
        revocation: str = "available",
        allow_common_name: bool = False,
        minimum_tls_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2,
        key_log_file: str | os.PathLike[str] | None = None,
        settings: ManagerSettings | None = None,
        resolver: ResolverNames | None = None,
    ) -> _Self:
        """A manager from PEM or PKCS#12 files instead of a store.

        Args:
            certificate: The certificate, its chain behind it; may hold the key as well.
            key: The private key, where it is in a file of its own.
            password: Of the key or of the PKCS#12 file.

        The other arguments and the errors are those of the class.
        """
        self = cls.__new__(cls)
        self._source = (certificate, key, password)
        self._initialize(
            LocalCertificate.from_files(certificate, key, password=password, strict=_is_strict(settings)),
            local_host,
            trusted_roots,
            need_mutual_tls,
            {
                "revocation": revocation,
                "allow_common_name": allow_common_name,
                "minimum_version": minimum_tls_version,
                "key_log_file": key_log_file,
            },
            settings,
            resolver,
        )
        return self

    def _initialize(
        self,
        certificate: LocalCertificate,
        local_host: str | None,
        trusted_roots: Any,
        need_mutual_tls: bool,
        tls_options: dict[str, Any],
        settings: ManagerSettings | None,
        resolver: ResolverNames | None,
    ) -> None:
        self._certificate = certificate
        self._trusted_roots = trusted_roots
        self._need_mutual_tls = need_mutual_tls
        self._tls_options = tls_options
        self._keys_to: str | None = None  # a file for Wireshark
        self._write_keys: list[TlsContexts] = []  # into such a file, which is removed in the end
        self._local_host_given = local_host is not None
        self._allowed_domains = DomainSet("allowed_domains", self._domains_changed)
        self._certificate_lock = threading.RLock()
        super().__init__(local_host or certificate.default_host, settings, self._contexts(), resolver)

    def _contexts(self) -> TlsContexts:
        """TLS as it is to be from now on: certificate, roots and rules are read and tested."""
        made = TlsContexts(
            self._certificate,
            TrustAnchors.load(self._trusted_roots),
            need_mutual_tls=self._need_mutual_tls,
            **(self._tls_options if self._keys_to is None else {**self._tls_options, "key_log_file": self._keys_to}),
        )
        if self._keys_to not in (None, self._given_key_log):
            self._write_keys.append(made)
        return made

    @property
    def _given_key_log(self) -> str | None:
        given = self._tls_options["key_log_file"]
        return None if given is None else os.fspath(given)

    def _keys_go_to(self, path: str | None) -> None:
        with self._certificate_lock:
            previous, self._keys_to = self._keys_to, path
            if path in (None, self._given_key_log):
                return
            try:
                self._swap(self._contexts())
            except BaseException:
                self._keys_to = previous
                raise

    def _close_key_logs(self) -> None:
        while self._write_keys:
            self._write_keys.pop().close_key_log()

    # ------------------------------------------------------------------ our certificate

    @property
    def _own_names(self) -> tuple[str, ...]:
        """Every name of the certificate: whoever is dialled by one of them was meant."""
        return self._certificate.identities.names

    @property
    def local_certificate(self) -> bytes:
        """The certificate in use for new connections (DER)."""
        return self._certificate.der

    def set_local_certificate(self, certificate_issuer_name: str, certificate_serial_number: SerialNumber) -> None:
        """Use another certificate of the store (the default one, for a manager made from files) from now on.

        New connections use it, existing ones live on. Where it cannot be used nothing changes. Blocks shortly.

        Raises:
            TlsFailureException: As at construction.
        """
        with self._certificate_lock:
            store = self._source[0] if isinstance(self._source[0], CertificateStore) else CertificateStore.default()
            strict = self.settings.strict_key_files
            self._use(store.find(certificate_issuer_name, certificate_serial_number, strict=strict))
            self._source = (store, certificate_issuer_name, certificate_serial_number)

    def reload_certificates(self) -> None:
        """Read certificate, key, trusted roots and CRLs again from where they came from.

        New connections use them. Existing ones live on, but for those whose peer the new CRLs revoke: these are
        closed. Where they cannot be used nothing changes. Blocks shortly.

        Raises:
            TlsFailureException: As at construction.
        """
        with self._certificate_lock:
            first, second, third = self._source
            strict = self.settings.strict_key_files
            if isinstance(first, CertificateStore):
                self._use(first.find(second, third, strict=strict))
            else:
                self._use(LocalCertificate.from_files(first, second, password=third, strict=strict))

    def _use(self, certificate: LocalCertificate) -> None:
        self._check_alive("change its certificate")
        previous, self._certificate = self._certificate, certificate
        try:
            contexts = self._contexts()
        except BaseException:
            self._certificate = previous
            raise
        if not self._local_host_given:
            self._local_host = certificate.default_host
        self._swap(contexts)

    def _swap(self, contexts: TlsContexts, *, unless_listening: bool = False) -> None:
        """New connections use these."""

        def swap() -> None:
            if unless_listening:
                self._check_not_listening()  # once more: another thread may have begun it meanwhile
            self._stack.network.use_tls(contexts)
            self._hosts_changed()

        self._stack.call("a change of TLS", swap).result()

    # ------------------------------------------------------------------ who may connect

    @property
    def need_mutual_tls(self) -> bool:
        """Whether peers that connect must show a certificate that is trusted. Settable while not listening.

        Raises:
            RealTimeInvalidOperationException: It listens, or ``allowed_domains`` needs it.
            TlsFailureException: The trusted roots cannot be used any more; nothing has changed.
        """
        return self._need_mutual_tls

    @need_mutual_tls.setter
    def need_mutual_tls(self, value: bool) -> None:
        if bool(value) == self._need_mutual_tls:
            return
        self._check_alive("change need_mutual_tls")
        self._check_not_listening()
        if not value and self._allowed_domains:
            raise RealTimeInvalidOperationException(
                "allowed_domains needs mutual TLS, because the domains are looked up in the peer's certificate: "
                "empty it before need_mutual_tls is switched off."
            )
        with self._certificate_lock:
            previous, self._need_mutual_tls = self._need_mutual_tls, bool(value)
            try:
                self._swap(self._contexts(), unless_listening=True)
            except BaseException:
                self._need_mutual_tls = previous
                raise

    def _check_not_listening(self) -> None:
        if self.is_listening:
            raise RealTimeInvalidOperationException(
                "need_mutual_tls cannot change while the connection manager listens: stop_listening() first."
            )

    @property
    def allowed_domains(self) -> DomainSet:
        """The domains whose peers may connect; empty means every peer whose certificate is trusted.

        Set-like: ``add``, ``discard``, or assign a list. ``.example.com`` means every name that ends so. Counts for
        later incoming connections; the library never changes it.
        """
        return self._allowed_domains

    @allowed_domains.setter
    def allowed_domains(self, domains: Iterable[str]) -> None:
        self._allowed_domains.replace(domains)

    def _domains_changed(self, domains: frozenset[str]) -> None:
        if domains and not self._need_mutual_tls:
            raise RealTimeInvalidOperationException(
                "allowed_domains needs need_mutual_tls = True: without it peers show no certificate to look at."
            )
        self._stack.network.allowed_domains = domains


def _is_strict(settings: ManagerSettings | None) -> bool:
    return settings is not None and arguments.instance(settings, ManagerSettings, "settings").strict_key_files


def _store(store: CertificateStore | str | os.PathLike[str] | None) -> CertificateStore:
    if store is None:
        return CertificateStore.default()
    return store if isinstance(store, CertificateStore) else CertificateStore(store)
