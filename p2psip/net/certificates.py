"""Our own certificates: one with its chain and key, and folders of them."""

from __future__ import annotations

import datetime
import os
import secrets
import ssl
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes, PrivateKeyTypes, PublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from p2psip.errors import TlsFailureException, TlsFailureReason
from p2psip.logs import Log
from p2psip.net import files
from p2psip.net.files import Contents, Password, UnreadableError
from p2psip.net.identity import Identities
from p2psip.net.names import IssuerName, serial_numbers, shown_name, shown_serial
from p2psip.net.trust import TrustAnchors

__all__ = ["CertificateStore", "Holdings", "LocalCertificate", "StoredCertificate", "TrustAnchors"]

_log = Log(__name__)

MINIMUM_RSA_BITS = 2048
MINIMUM_CURVE_BITS = 224
STORE_VARIABLE = "P2PSIP_CERTIFICATE_STORE"
SYSTEM_STORE = Path("/etc/p2psip/certificates")

_MAXIMUM_CHAIN = 10
_SHOWN = 6
_WEAK_DIGESTS = ("md5", "sha1")
_USAGES = {"serverAuth": ExtendedKeyUsageOID.SERVER_AUTH, "clientAuth": ExtendedKeyUsageOID.CLIENT_AUTH}
_NOT_FOUND = TlsFailureReason.LOCAL_CERTIFICATE_NOT_FOUND


class LocalCertificate:
    """A certificate that we show to peers, with its chain and its private key. Immutable.

    Attributes:
        certificate: Ours.
        chain: What is sent with it: the certificates between it and the root.
        source: Where it comes from, for sentences.

    Raises:
        TlsFailureException: Peers would refuse it: the key is another certificate's, or too weak
            (LOCAL_CERTIFICATE_NOT_FOUND), it is not valid now (CERTIFICATE_EXPIRED), its usage forbids what we do
            with it (OTHER).
    """

    def __init__(
        self,
        certificate: x509.Certificate,
        chain: Iterable[x509.Certificate],
        key: PrivateKeyTypes,
        source: str = "the certificate given",
    ) -> None:
        self.certificate = certificate
        self.chain = tuple(chain)
        self.source = source
        self._key = key
        self._check()

    @classmethod
    def from_files(
        cls,
        certificate: str | os.PathLike[str],
        key: str | os.PathLike[str] | None = None,
        *,
        password: Password = None,
        strict: bool = False,
    ) -> LocalCertificate:
        """From PEM, DER or PKCS#12 files.

        Args:
            certificate: The certificate and, behind it, its chain; the key may lie there as well.
            key: The private key, where it has a file of its own.
            password: Of an encrypted key or PKCS#12 file.
            strict: Refuse a key that other users can read.

        Raises:
            TlsFailureException: Nothing usable is there, or as for the class.
        """
        path = Path(certificate)
        found = [_read(each, password, strict) for each in ([path] if key is None else [path, Path(key)])]
        certificates = found[0].certificates
        if not certificates:
            raise _failure(f"{path} {found[0].problems[0] if found[0].problems else 'holds no certificate'}.")
        keys = list(found[-1].keys)
        try:
            keys += found[-1].unlock(password) if found[-1].locked else ()
        except UnreadableError as error:
            raise _failure(f"{found[-1].path} {error}: give the right password.") from error
        if not keys:
            problem = f"{found[-1].problems[0]}" if found[-1].problems else "holds no private key"
            raise _failure(f"{found[-1].path} {problem}: name the file with the private key of {path}.")
        for one in certificates:
            for candidate in keys:
                if _belongs(candidate, one):
                    return cls(one, _chain_of(one, certificates), candidate, str(path))
        raise _failure(
            f"The private key in {found[-1].path} does not belong to the certificate "
            f"{shown_name(certificates[0].subject)} in {path}: take the key that it was made with."
        )

    @property
    def der(self) -> bytes:
        """The certificate's bytes."""
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def identities(self) -> Identities:
        """Whom it stands for in SIP (RFC 5922)."""
        return Identities.from_certificate(self.certificate)

    @property
    def default_host(self) -> str | None:
        """What peers can call us by: the first of its identities that is a whole name or address; None without any."""
        return self.identities.first_host()

    def load_into(self, context: ssl.SSLContext) -> None:
        """Make OpenSSL use it.

        Raises:
            TlsFailureException: It does not want to (LOCAL_CERTIFICATE_NOT_FOUND).
        """
        password = secrets.token_hex(32).encode()
        pem = self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password))
        pem += b"".join(c.public_bytes(Encoding.PEM) for c in (self.certificate, *self.chain))
        try:
            with files.shown_as_file(pem) as path:
                context.load_cert_chain(path, password=lambda: password)
        except ssl.SSLError as error:
            raise self.unusable(error) from error

    def unusable(self, error: ssl.SSLError | None) -> TlsFailureException:
        """OpenSSL cannot work with it; ``error`` says why. Chain it with ``from``."""
        why = (
            "the handshake came to no end" if error is None else (error.reason or str(error)).lower().replace("_", " ")
        )
        return TlsFailureException(
            f"The certificate {self} cannot be used for TLS because OpenSSL says {why!r}: take another one.",
            _NOT_FOUND,
            error_code=0 if error is None else error.errno or 0,
        )

    def __str__(self) -> str:
        return f"{_shown(self.certificate)} ({self.source})"

    def __repr__(self) -> str:
        return f"<LocalCertificate {self}>"

    def _check(self) -> None:
        if not _belongs(self._key, self.certificate):
            raise _failure(
                f"The private key does not belong to the certificate {self}: take the key that it was made with."
            )
        weakness = _weakness(self.certificate)
        if weakness is not None:
            raise _failure(f"The certificate {self} is too weak, peers would refuse it: {weakness}.")
        now = datetime.datetime.now(datetime.timezone.utc)
        if now > self.certificate.not_valid_after_utc:
            raise _failure(
                f"The certificate {self} expired on {self.certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC: renew "
                "it.",
                TlsFailureReason.CERTIFICATE_EXPIRED,
            )
        if now < self.certificate.not_valid_before_utc:
            raise _failure(
                f"The certificate {self} is not valid before "
                f"{self.certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC: see whether the clock is right.",
                TlsFailureReason.CERTIFICATE_EXPIRED,
            )
        forbidden = _forbidden_usage(self.certificate)
        if forbidden is not None:
            raise _failure(
                f"The certificate {self} cannot be used for SIP over TLS: {forbidden}.", TlsFailureReason.OTHER
            )


class StoredCertificate(NamedTuple):
    """One certificate of a store.

    Attributes:
        certificate: It.
        path: The file that it is in.
        has_key: Its private key is in the store and can be read.
    """

    certificate: x509.Certificate
    path: Path
    has_key: bool


class Holdings(NamedTuple):
    """What a store holds just now.

    Attributes:
        certificates: Each once, in the order of the files.
        problems: What could not be read, a sentence each.
    """

    certificates: tuple[StoredCertificate, ...]
    problems: tuple[str, ...]


class CertificateStore:
    """A folder with certificates, chains and keys in PEM, DER and PKCS#12 files, in any arrangement.

    Its sub-folder ``trusted`` has the roots and CRLs that peers are verified with. The files are read when something
    is looked for, so a store follows what is put into its folder.

    Args:
        path: The folder.
        password: Of encrypted keys and PKCS#12 files; a callable is asked for each file (``password(path)``).
    """

    def __init__(self, path: str | os.PathLike[str], *, password: Password = None) -> None:
        self.path = Path(path)
        self._password = password

    @classmethod
    def default(cls) -> CertificateStore:
        """``$P2PSIP_CERTIFICATE_STORE``, else ``p2psip/certificates`` in the user's configuration folder, else
        ``/etc/p2psip/certificates``: the first that is set or exists; the user's where none does."""
        chosen = os.environ.get(STORE_VARIABLE)
        if chosen:
            return cls(chosen)
        users = _configuration_folder() / "p2psip" / "certificates"
        return cls(SYSTEM_STORE if SYSTEM_STORE.is_dir() and not users.is_dir() else users)

    @property
    def trusted(self) -> Path:
        """The folder of trusted roots and CRLs."""
        return self.path / "trusted"

    def __repr__(self) -> str:
        return f"CertificateStore({str(self.path)!r})"

    def holdings(self) -> Holdings:
        """What is in it.

        Raises:
            TlsFailureException: The folder cannot be read (LOCAL_CERTIFICATE_NOT_FOUND).
        """
        shelf = self._read()
        stored = tuple(StoredCertificate(c, path, shelf.key_of(c) is not None) for c, path in shelf.certificates())
        return Holdings(stored, tuple(shelf.problems()))

    def find(self, issuer: str, serial: int | str | bytes, *, strict: bool = False) -> LocalCertificate:
        """The certificate of this issuer with this serial number, with its chain and key.

        Args:
            issuer: Its distinguished name (RFC 4514, or as OpenSSL or Windows write it), or its common name alone.
                Case and spacing do not count.
            serial: An int, hex text (colons and spaces allowed), or bytes in the order that viewers show; reversed
                bytes, as .NET gives them, are taken when they fit exactly one certificate.
            strict: Leave out files with a private key that other users can read.

        Raises:
            TlsFailureException: It is not there, has no key, or cannot be used; the sentence says what the store
                holds instead.
            ValueError, TypeError: An argument.
        """
        if not isinstance(issuer, str):
            raise TypeError(f"The issuer is given as text, not as {type(issuer).__name__}.")
        wanted, numbers = IssuerName(issuer), serial_numbers(serial)
        shelf = self._read(strict)
        fitting = {c: path for c, path in shelf.certificates() if wanted.fits(c.issuer) and c.serial_number in numbers}
        if not fitting:
            number = shown_serial(numbers[0]) if numbers[0] >= 0 else str(numbers[0])
            raise _failure(
                f"No certificate issued by {issuer!r} with serial number {number} is in the certificate store "
                f"{self.path}, which holds {shelf.description()}."
            )
        if len({(c.issuer, c.serial_number) for c in fitting}) > 1:
            shown = " and ".join(f"{_shown(c)} ({path.name})" for c, path in fitting.items())
            raise _failure(
                f"{issuer!r} and the serial number fit more than one certificate in the certificate store {self.path}, "
                f"{shown}: give the whole name of the issuer, and the serial number as a viewer shows it."
            )
        certificate = max(fitting, key=shelf.preference)
        path = fitting[certificate]
        key = shelf.key_of(certificate)
        if key is None:
            raise _failure(
                f"The certificate {_shown(certificate)} in {path} has no private key in the certificate store "
                f"{self.path}{shelf.why_no_key(certificate)}: put its key into that folder."
            )
        return LocalCertificate(certificate, shelf.chain_of(certificate), key, str(path))

    def _read(self, strict: bool = False) -> _Shelf:
        try:
            paths = sorted(path for path in self.path.iterdir() if not path.name.startswith(".") and path.is_file())
        except OSError as error:
            raise _failure(
                f"The certificate store {self.path} cannot be read ({error.strerror or error}): make that folder and "
                f"put the certificate and its key into it, or name another with ${STORE_VARIABLE}."
            ) from error
        found, unreadable = [], []
        for path in paths:
            try:
                found.append(files.read(path, self._password, strict=strict))
            except UnreadableError as error:
                unreadable.append(f"{path.name} {error}")
        shelf = _Shelf(found, unreadable, self._password)
        for problem in shelf.problems():
            _log.warning("In the certificate store %s: %s", self.path, problem)
        return shelf


class _Shelf:
    """The files of a store, read once."""

    def __init__(self, found: list[Contents], unreadable: list[str], password: Password) -> None:
        self._found = found
        self._unreadable = unreadable
        self._password = password
        self._locked = [contents for contents in found if contents.locked]
        self._keys = {_public(key.public_key()): key for contents in found for key in contents.keys}
        self._refused: dict[Path, str] = {}

    def certificates(self) -> list[tuple[x509.Certificate, Path]]:
        """Each once."""
        seen: dict[x509.Certificate, Path] = {}
        for contents in self._found:
            for certificate in contents.certificates:
                seen.setdefault(certificate, contents.path)
        return list(seen.items())

    def problems(self) -> list[str]:
        """A sentence each."""
        parts = [f"{contents.path.name} {problem}" for contents in self._found for problem in contents.problems]
        return [f"{part}." for part in (*self._unreadable, *parts)]

    def description(self) -> str:
        """What is here, for the end of a sentence."""
        ours = [(c, path) for c, path in self.certificates() if not _is_authority(c)] or self.certificates()
        shown = [f"{_shown(c)} ({path.name})" for c, path in ours[:_SHOWN]]
        if len(ours) > _SHOWN:
            shown.append(f"{len(ours) - _SHOWN} more")
        text = "; ".join(shown) or "no certificate"
        problems = self.problems()
        if problems:
            more = f" and {len(problems) - 3} files more" if len(problems) > 3 else ""
            text += f" (and what cannot be used: {', '.join(p.rstrip('.') for p in problems[:3])}{more})"
        return text

    def key_of(self, certificate: x509.Certificate) -> PrivateKeyTypes | None:
        """Its private key. Encrypted ones are opened only when no other fits, those with a like name first."""
        wanted = _public(certificate.public_key())
        if wanted not in self._keys:
            home = next(path for c, path in self.certificates() if c == certificate)
            for contents in sorted(self._locked, key=lambda each: each.path.stem != home.stem):
                try:
                    opened = contents.unlock(self._password)
                except UnreadableError as error:
                    self._refused[contents.path] = str(error)
                    opened = []
                self._locked.remove(contents)
                self._keys.update((_public(key.public_key()), key) for key in opened)
                if wanted in self._keys:
                    break
        return self._keys.get(wanted)

    def why_no_key(self, certificate: x509.Certificate) -> str:
        """What may have hidden it."""
        refused = [*self._unreadable, *(f"{path.name} {problem}" for path, problem in self._refused.items())]
        return f" ({'; '.join(refused[:3])})" if refused else ""

    def preference(self, certificate: x509.Certificate) -> tuple[bool, datetime.datetime]:
        """Of several that fit: one that is valid and has its key, then the latest."""
        now = datetime.datetime.now(datetime.timezone.utc)
        is_valid = certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc
        return is_valid and self.key_of(certificate) is not None, certificate.not_valid_before_utc

    def chain_of(self, certificate: x509.Certificate) -> list[x509.Certificate]:
        return _chain_of(certificate, [c for c, _ in self.certificates()])


def _read(path: Path, password: Password, strict: bool) -> Contents:
    try:
        return files.read(path, password, strict=strict)
    except UnreadableError as error:
        raise _failure(f"The certificate file {path} {error}.") from error


def _chain_of(certificate: x509.Certificate, pool: Sequence[x509.Certificate]) -> list[x509.Certificate]:
    """The certificates between it and its root, as far as they are there."""
    chain: list[x509.Certificate] = []
    while len(chain) < _MAXIMUM_CHAIN:
        issuer = next((c for c in pool if c.subject == certificate.issuer and _has_signed(c, certificate)), None)
        if issuer is None or issuer.subject == issuer.issuer or issuer in chain:
            break
        chain.append(issuer)
        certificate = issuer
    return chain


def _has_signed(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return True


def _belongs(key: PrivateKeyTypes, certificate: x509.Certificate) -> bool:
    return _public(key.public_key()) == _public(certificate.public_key())


def _public(key: CertificatePublicKeyTypes | PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return False


def _weakness(certificate: x509.Certificate) -> str | None:
    """What OpenSSL's security level 2 refuses, in words."""
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < MINIMUM_RSA_BITS:
        return f"its RSA key has {key.key_size} bits, and {MINIMUM_RSA_BITS} are needed"
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.key_size < MINIMUM_CURVE_BITS:
        return f"its curve {key.curve.name} is too small, take P-256"
    try:
        digest = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return None
    if digest is not None and digest.name in _WEAK_DIGESTS and certificate.subject != certificate.issuer:
        return f"it is signed with {digest.name.upper()}, and SHA-256 is needed"
    return None


def _forbidden_usage(certificate: x509.Certificate) -> str | None:
    """What a peer would miss: each side is the client of one connection and the server of another."""
    try:
        extensions = certificate.extensions
    except (ValueError, x509.DuplicateExtension):
        return "its extensions are damaged, so it has to be issued again"
    for extension in extensions:
        value = extension.value
        if isinstance(value, x509.KeyUsage) and not value.digital_signature:
            return "its key usage lacks digitalSignature, so it has to be issued again"
        if isinstance(value, x509.ExtendedKeyUsage):
            missing = [name for name, oid in _USAGES.items() if oid not in value]
            if missing:
                return f"its extended key usage lacks {' and '.join(missing)}, so it has to be issued again"
    return None


def _shown(certificate: x509.Certificate) -> str:
    """A certificate in words: whose it is, its issuer and serial number as ``find`` takes them."""
    names = Identities.from_certificate(certificate).names
    subject = certificate.subject.rfc4514_string() or ", ".join(names[:3]) or "without a name"
    serial = shown_serial(certificate.serial_number) if certificate.serial_number >= 0 else certificate.serial_number
    return f"{subject!r} issued by {shown_name(certificate.issuer)!r} with serial number {serial}"


def _configuration_folder() -> Path:
    """Where programs of this user keep their settings."""
    try:
        home = Path.home()
    except RuntimeError:  # nobody's
        home = Path("/nonexistent")
    if sys.platform == "win32":
        return Path(os.environ.get("APPDATA") or home / "AppData" / "Roaming")
    if sys.platform == "darwin":
        return home / "Library" / "Application Support"
    return Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")


def _failure(sentence: str, reason: TlsFailureReason = _NOT_FOUND) -> TlsFailureException:
    return TlsFailureException(sentence, reason)
