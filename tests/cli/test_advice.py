"""What would make it work: one sentence for each way in which it does not."""

from __future__ import annotations

import datetime
import socket

import pytest

from p2psip.cli.advice import advise
from p2psip.cli.certificate import CertificateFacts, now
from p2psip.cli.look import View
from p2psip.errors import (
    ConnectionFailureException,
    OperationFailureException,
    OperationTimeoutException,
    RealTimeException,
    TlsFailureException,
    TlsFailureReason,
)

DAY = datetime.timedelta(days=1)


def facts(
    subject: str = "CN=bob",
    issuer: str = "CN=Example CA",
    names: tuple[str, ...] = ("bob.example",),
    begins: int = -10,
    ends: int = 10,
) -> CertificateFacts:
    """A certificate whose validity begins and ends so many days from now."""
    moment = now()
    begin, end = moment + begins * DAY, moment + ends * DAY
    return CertificateFacts(subject, issuer, "1", names, begin, end, "EC secp256r1", "ab" * 32, False)


def tls(reason: TlsFailureReason) -> TlsFailureException:
    return TlsFailureException("It failed.", reason)


def unresolved() -> ConnectionFailureException:
    error = ConnectionFailureException("No such name.")
    error.__cause__ = socket.gaierror()
    return error


R = TlsFailureReason
SEEN = View(("127.0.0.1", 5061), "TLSv1.3", "TLS_AES_256_GCM_SHA384", is_tls=True)

CASES: list[tuple[str, RealTimeException, View, list[CertificateFacts], bool, str]] = [
    ("name", tls(R.INCORRECT_NAME_IN_REMOTE_CERTIFICATE), SEEN, [facts()], False, "is for bob.example"),
    (
        "one name twice",
        tls(R.INCORRECT_NAME_IN_REMOTE_CERTIFICATE),
        SEEN,
        [facts(names=("sip:bob.example", "bob.example"))],
        False,
        "is for bob.example: ",
    ),
    ("name", tls(R.INCORRECT_NAME_IN_REMOTE_CERTIFICATE), SEEN, [facts()], False, "--tls-name"),
    ("no name", tls(R.INCORRECT_NAME_IN_REMOTE_CERTIFICATE), SEEN, [facts(names=())], False, "this one has none"),
    ("expired", tls(R.CERTIFICATE_EXPIRED), SEEN, [facts(ends=-3)], False, "renew the certificate of CN=bob"),
    (
        "expired above",
        tls(R.CERTIFICATE_EXPIRED),
        SEEN,
        [facts(), facts("CN=Middle", ends=-3)],
        False,
        "renew the certificate of CN=Middle",
    ),
    ("too early", tls(R.CERTIFICATE_EXPIRED), SEEN, [facts(begins=3)], False, "clocks"),
    ("untrusted", tls(R.UNTRUSTED_REMOTE_CERTIFICATE), SEEN, [facts()], False, "root certificate of CN=Example CA"),
    ("self-signed", tls(R.UNTRUSTED_REMOTE_CERTIFICATE), SEEN, [facts(issuer="CN=bob")], False, "nobody but itself"),
    ("untrusted, unseen", tls(R.UNTRUSTED_REMOTE_CERTIFICATE), View(), [], False, "trusted/"),
    ("revoked", tls(R.REMOTE_CERTIFICATE_REVOKED), SEEN, [facts()], False, "new certificate"),
    ("usage", tls(R.REMOTE_CERTIFICATE_INVALID_USAGE), SEEN, [facts()], False, "extended key usage"),
    ("not TLS", tls(R.TLS_NEGOTIATION_FAILURE), View(is_tls=False), [], False, "does not speak TLS"),
    ("closed at once", tls(R.REMOTE_DISCONNECTED), View(), [], False, "does not speak TLS"),
    (
        "demands one",
        tls(R.TLS_NEGOTIATION_FAILURE),
        View(demands_certificate=True, is_tls=True),
        [],
        True,
        "demands a certificate from us",
    ),
    (
        "refuses ours",
        tls(R.TLS_NEGOTIATION_FAILURE),
        View(demands_certificate=True, is_tls=True),
        [],
        False,
        "does not accept ours",
    ),
    ("old", tls(R.TLS_NEGOTIATION_FAILURE), View(version="TLSv1", is_tls=True), [], False, "TLS 1.2 or 1.3"),
    (
        "weak",
        tls(R.TLS_NEGOTIATION_FAILURE),
        View(version="TLSv1.2", cipher="AES128-SHA", is_tls=True),
        [],
        False,
        "forward secrecy",
    ),
    ("silent refusal", tls(R.OTHER), View(is_tls=True), [], False, "log"),
    ("unknown name", unresolved(), View(), [], False, "name leads nowhere"),
    ("closed port", ConnectionFailureException("Refused."), View(), [], False, "host and port"),
    ("silence", OperationTimeoutException("Nothing."), View(), [], False, "--timeout"),
    ("limit", OperationFailureException("Throttled."), View(), [], False, "request failed"),
]


@pytest.mark.parametrize(("name", "error", "view", "chain", "stranger", "words"), CASES, ids=[c[0] for c in CASES])
def test_advice(
    name: str, error: RealTimeException, view: View, chain: list[CertificateFacts], stranger: bool, words: str
) -> None:
    sentence = advise(error, view, chain, "carol.example", stranger)
    assert words in sentence
    assert sentence.endswith(".")
    assert sentence.count(". ") == 0, "one sentence"


def test_every_tls_reason_has_advice_of_its_own() -> None:
    chain = [facts(ends=-3, issuer="CN=bob")]
    remote = [r for r in R if r not in (R.LOCAL_CERTIFICATE_NOT_FOUND, R.OTHER, R.TLS_NEGOTIATION_FAILURE)]
    sentences = {advise(tls(reason), View(), chain, "carol.example", False) for reason in remote}
    assert len(sentences) == len(remote)
