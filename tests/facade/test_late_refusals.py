"""TLS 1.3, where a client's handshake is over before the server has judged its certificate."""

from __future__ import annotations

import pytest
from facade_support import BOUND
from scale import scaled

from p2psip import (
    IPAddress,
    IPEndPoint,
    ManagerSettings,
    MessageType,
    SipPeerToPeerEndpoint,
    TlsFailureException,
    TlsFailureReason,
)
from p2psip.testing import CertificateAuthority, tls_manager


@pytest.mark.long
@pytest.mark.holds("R6", "F16")
def test_a_late_refusal_is_told_to_each_request_within_a_second() -> None:
    """However the requests meet the alert: before it, with it, after it."""
    ours, strangers = CertificateAuthority(), CertificateAuthority("Strangers")
    settings = ManagerSettings(connect_back_off=0)
    with (
        tls_manager(strangers, "alice.example", trusted_roots=ours.certificate, settings=settings) as one,
        tls_manager(ours, "bob.example", "localhost") as two,
    ):
        two.start_listening(IPEndPoint(IPAddress.LOOPBACK, 0))
        alice = SipPeerToPeerEndpoint("sip:alice@alice.example", one)
        address = f"sip:bob@localhost:{two.listening_port}"
        for number in range(scaled(1000)):
            with two.incoming_tls_negotiation_failed.expect(BOUND) as refused:
                operations = [alice.begin_send_message(MessageType.MESSAGE, address) for _ in range(1 + number % 5)]
            assert refused.args.exception.failure_reason is TlsFailureReason.UNTRUSTED_REMOTE_CERTIFICATE
            for operation in operations:
                error = operation.exception(1.0)  # a time-out would be raised
                assert isinstance(error, TlsFailureException), (number, error)
                assert error.failure_reason is TlsFailureReason.TLS_NEGOTIATION_FAILURE
