"""What lies in PEM, DER and PKCS#12 files, and files for OpenSSL that never lay on a disk."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_pem_private_key
from cryptography.hazmat.primitives.serialization.pkcs12 import load_key_and_certificates

from p2psip.logs import Log

_log = Log(__name__)

MAXIMUM_SIZE = 4 * 1024 * 1024
"""Bytes: what is larger is no certificate file."""

Password = str | bytes | Callable[[Path], "str | bytes | None"] | None
"""Of encrypted keys and PKCS#12 files; a callable is asked for each file and may say None."""

_PEM_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\s.*?-----END \1-----", re.DOTALL)
_CERTIFICATES = (b"CERTIFICATE", b"X509 CERTIFICATE")
_CRL_ERRORS = (ValueError, x509.InvalidVersion, UnsupportedAlgorithm)


class UnreadableError(Exception):
    """A file, or a part of it, cannot be read. The text is the end of a sentence that begins with its name."""


@dataclasses.dataclass(repr=False)
class Contents:
    """What a file holds.

    Attributes:
        path: The file.
        certificates: In its order.
        keys: Keys that lie there in clear, or that PKCS#12 gave.
        locked: Encrypted keys (PEM or DER), which :meth:`unlock` opens.
        crls: Lists of revoked certificates.
        problems: What could not be read, each the end of a sentence.
        damaged_crl: One of the problems is a CRL.
    """

    path: Path
    certificates: list[x509.Certificate] = dataclasses.field(default_factory=list)
    keys: list[PrivateKeyTypes] = dataclasses.field(default_factory=list)
    locked: list[bytes] = dataclasses.field(default_factory=list)
    crls: list[x509.CertificateRevocationList] = dataclasses.field(default_factory=list)
    problems: list[str] = dataclasses.field(default_factory=list)
    damaged_crl: bool = False

    def unlock(self, password: Password) -> list[PrivateKeyTypes]:
        """The encrypted keys.

        Raises:
            UnreadableError: The password is wrong or missing.
        """
        secret = password_for(password, self.path)
        if secret is None:
            raise UnreadableError("holds an encrypted private key, and no password was given")
        keys = []
        for block in self.locked:
            try:
                keys.append(_load_key(block, secret))
            except (ValueError, TypeError, UnsupportedAlgorithm) as error:
                raise UnreadableError(
                    "holds an encrypted private key that the password does not open, or it is damaged"
                ) from error
        return keys


def read(path: Path, password: Password = None, *, strict: bool = False) -> Contents:
    """Everything in a file. A private key that other users can read is warned of.

    Raises:
        UnreadableError: There is no way to it, or it is ``strict`` and other users can read a private key in it.
    """
    try:
        if path.stat().st_size > MAXIMUM_SIZE:
            raise UnreadableError("is too large for a file of certificates")
        data = path.read_bytes()
    except OSError as error:
        raise UnreadableError(f"cannot be read ({error.strerror or error})") from error
    contents = parse(data, path, password)
    if (contents.keys or contents.locked) and _is_open_to_others(path):
        if strict:
            raise UnreadableError(
                "holds a private key that other users can read, which strict_key_files forbids: chmod 600 it"
            )
        _log.warning("The private key in %s can be read by other users: chmod 600 it.", path)
    return contents


def parse(data: bytes, path: Path, password: Password = None) -> Contents:
    """Everything in the bytes of a file."""
    contents = Contents(path)
    if b"-----BEGIN " in data:
        for match in _PEM_BLOCK.finditer(data):
            _take_block(contents, match[1], match[0])
    elif data[:1] == b"\x30":
        _take_der(contents, data, password)
    if not (contents.certificates or contents.keys or contents.locked or contents.crls or contents.problems):
        contents.problems.append("holds neither certificates nor keys in PEM or PKCS#12 form")
    return contents


def _take_block(contents: Contents, label: bytes, block: bytes) -> None:
    if label in _CERTIFICATES:
        try:
            contents.certificates.append(x509.load_pem_x509_certificate(block.replace(b"X509 CERT", b"CERT")))
        except ValueError:
            contents.problems.append("holds a damaged certificate")
    elif label == b"X509 CRL":
        try:
            contents.crls.append(x509.load_pem_x509_crl(block))
        except _CRL_ERRORS:
            contents.problems.append("holds a damaged CRL")
            contents.damaged_crl = True
    elif label == b"ENCRYPTED PRIVATE KEY" or (label.endswith(b"PRIVATE KEY") and b"Proc-Type: 4,ENCRYPTED" in block):
        contents.locked.append(block)
    elif label.endswith(b"PRIVATE KEY"):
        try:
            contents.keys.append(load_pem_private_key(block, None))
        except (ValueError, TypeError, UnsupportedAlgorithm):
            contents.problems.append("holds a damaged private key")


def _take_der(contents: Contents, data: bytes, password: Password) -> None:
    try:
        contents.certificates.append(x509.load_der_x509_certificate(data))
        return
    except ValueError:
        pass
    try:
        contents.crls.append(x509.load_der_x509_crl(data))
        return
    except _CRL_ERRORS:
        pass
    try:
        contents.keys.append(load_der_private_key(data, None))
        return
    except TypeError:  # it is encrypted
        contents.locked.append(data)
        return
    except (ValueError, UnsupportedAlgorithm):
        pass
    secret = password_for(password, contents.path)
    # Writers disagree on what no password is: none at all, or an empty one.
    for attempt in (secret,) if secret else (None, b""):
        try:
            key, certificate, others = load_key_and_certificates(data, attempt)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            continue
        contents.certificates += [certificate] if certificate is not None else []
        contents.certificates += others
        contents.keys += [key] if key is not None else []
        return
    what = "with the password given" if secret else "without a password"
    contents.problems.append(f"is a PKCS#12 file that cannot be opened {what}, or it is damaged")


def _load_key(block: bytes, secret: bytes) -> PrivateKeyTypes:
    return load_pem_private_key(block, secret) if block.startswith(b"-----") else load_der_private_key(block, secret)


def password_for(password: Password, path: Path) -> bytes | None:
    """The password of one file."""
    secret = password(path) if callable(password) else password
    return secret.encode() if isinstance(secret, str) else secret


def _is_open_to_others(path: Path) -> bool:
    """More than its owner may do something with it. Modes are POSIX's; elsewhere nothing is known."""
    return os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077 != 0


@contextlib.contextmanager
def shown_as_file(data: bytes) -> Iterator[str]:
    """A path under which OpenSSL, which reads nothing but files, finds the data while the block runs.

    On Linux it lies in memory only, elsewhere in a temporary file that only this user can read.
    """
    if hasattr(os, "memfd_create") and Path("/proc/self/fd").is_dir():
        descriptor = os.memfd_create("p2psip")
        try:
            with os.fdopen(descriptor, "wb", closefd=False) as file:
                file.write(data)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
        return
    descriptor, name = tempfile.mkstemp(prefix="p2psip-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        yield name
    finally:
        Path(name).unlink()
