"""Which failure ends a command with which code."""

from __future__ import annotations

import pytest

from p2psip.cli.exits import MEANINGS, CommandError, ExitCode, exit_code, reason, sentence, usage_errors
from p2psip.errors import (
    ConnectionFailureException,
    FailureResponseException,
    MessageParsingException,
    OperationFailureException,
    OperationFailureReason,
    OperationTimeoutException,
    TlsFailureException,
    TlsFailureReason,
)


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


class Response:
    response_code = 486


CASES = [
    (CommandError("x", ExitCode.CERTIFICATE), ExitCode.CERTIFICATE, "CERTIFICATE"),
    (CommandError("x", ExitCode.USAGE, "ODD"), ExitCode.USAGE, "ODD"),
    (ConnectionFailureException("x"), ExitCode.CONNECTION, "CONNECTION"),
    (caused(ConnectionFailureException("x"), TimeoutError()), ExitCode.TIMEOUT, "TIMEOUT"),
    (caused(ConnectionFailureException("x"), ConnectionRefusedError()), ExitCode.CONNECTION, "CONNECTION"),
    (OperationTimeoutException("x"), ExitCode.TIMEOUT, "TIMEOUT"),
    *(
        (TlsFailureException("x", kind), ExitCode.TLS, kind.name)
        for kind in TlsFailureReason
        if kind is not TlsFailureReason.LOCAL_CERTIFICATE_NOT_FOUND
    ),
    (
        TlsFailureException("x", TlsFailureReason.LOCAL_CERTIFICATE_NOT_FOUND),
        ExitCode.CERTIFICATE,
        "LOCAL_CERTIFICATE_NOT_FOUND",
    ),
    (FailureResponseException("x", Response()), ExitCode.REFUSED, "486"),
    (OperationFailureException("x", OperationFailureReason.THROTTLED), ExitCode.FAILED, "THROTTLED"),
    (ZeroDivisionError(), ExitCode.INTERNAL, "INTERNAL"),
    (ValueError("x"), ExitCode.INTERNAL, "INTERNAL"),
    (MessageParsingException("x"), ExitCode.FAILED, None),
]


@pytest.mark.parametrize(("error", "code", "word"), CASES, ids=lambda case: type(case).__name__)
def test_code_and_reason(error: Exception, code: ExitCode, word: str | None) -> None:
    assert exit_code(error) is code
    if word is not None:
        assert reason(error) == word


def test_advice_of_the_library_names_the_options_of_the_command() -> None:
    said = "Expect another (tls_target_name), or name trusted_roots_file."
    told = sentence(TlsFailureException(said, TlsFailureReason.OTHER))
    assert told == "Expect another (--tls-name), or name trusted_roots_file."
    assert sentence(ValueError()) == "ValueError()"


def test_every_code_has_a_meaning() -> None:
    assert set(MEANINGS) == set(ExitCode)


@pytest.mark.parametrize("error", [ValueError("no such thing"), TypeError("no such thing")])
def test_argument_errors_of_the_library_are_usage_errors(error: Exception) -> None:
    with pytest.raises(CommandError, match="no such thing") as caught, usage_errors():
        raise error
    assert caught.value.exit_code is ExitCode.USAGE
