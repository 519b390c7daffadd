"""How a command ends: the exit codes, all in one place, and which failure gives which."""

from __future__ import annotations

import contextlib
import enum
import re
from collections.abc import Iterator

from p2psip.errors import (
    ConnectionFailureException,
    FailureResponseException,
    OperationTimeoutException,
    RealTimeException,
    TlsFailureException,
    TlsFailureReason,
)


class ExitCode(enum.IntEnum):
    """What a command returns to the shell. Scripts rely on the numbers."""

    OK = 0
    REFUSED = 1
    USAGE = 2
    CONNECTION = 3
    TLS = 4
    TIMEOUT = 5
    CERTIFICATE = 6
    FAILED = 7
    INTERNAL = 70
    INTERRUPTED = 130
    BROKEN_PIPE = 141


MEANINGS = {
    ExitCode.OK: "done; all requests were answered 2xx",
    ExitCode.REFUSED: "the peer answered with a failure, or some requests were lost",
    ExitCode.USAGE: "an argument is wrong; nothing was sent",
    ExitCode.CONNECTION: "no connection: unknown name, closed port, no route, port taken",
    ExitCode.TLS: "TLS failed: the peer's certificate was refused, or the peer refused ours",
    ExitCode.TIMEOUT: "no answer in time",
    ExitCode.CERTIFICATE: "our own certificate, key or store cannot be used, or something in it expires",
    ExitCode.FAILED: "another failure; the sentence says which",
    ExitCode.INTERNAL: "a defect of p2psip; the traceback is shown",
    ExitCode.INTERRUPTED: "ended by Ctrl-C",
    ExitCode.BROKEN_PIPE: "whoever read the output is gone",
}


_OPTIONS = {
    "tls_target_name": "--tls-name",
    "trusted_roots": "--trusted",
    "need_mutual_tls": "--any-client lets it in all the same",
}


class CommandError(Exception):
    """A command cannot go on.

    Attributes:
        exit_code: How it ends.
        reason: One word for scripts, the same as in ``--json``.
    """

    def __init__(self, sentence: str, exit_code: ExitCode, reason: str | None = None) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code
        self.reason = reason or exit_code.name


@contextlib.contextmanager
def usage_errors() -> Iterator[None]:
    """What the library calls a wrong argument is a wrong argument of the command."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise CommandError(str(error), ExitCode.USAGE) from error


def exit_code(error: BaseException) -> ExitCode:
    """The code that a failure ends the command with; INTERNAL for what nobody expects."""
    if isinstance(error, CommandError):
        return error.exit_code
    if isinstance(error, OperationTimeoutException) or isinstance(error.__cause__, TimeoutError):
        return ExitCode.TIMEOUT
    if isinstance(error, TlsFailureException):
        local = error.failure_reason is TlsFailureReason.LOCAL_CERTIFICATE_NOT_FOUND
        return ExitCode.CERTIFICATE if local else ExitCode.TLS
    if isinstance(error, ConnectionFailureException):
        return ExitCode.CONNECTION
    if isinstance(error, FailureResponseException):
        return ExitCode.REFUSED
    if isinstance(error, RealTimeException):
        return ExitCode.FAILED
    return ExitCode.INTERNAL


def sentence(error: BaseException) -> str:
    """What to tell of it: where the library advises to use an argument of its own, the option that sets it."""
    text = str(error) or repr(error)
    text = text.replace("; proxy_certificate_subject for an outbound proxy", "")
    text = re.sub(r"endpoint\.credentials\.add\(.*, allow_md5=True\)", "--allow-md5", text)
    text = re.sub(r"endpoint\.credentials\.add\(.*\)", "--user", text)
    return re.sub(r"\b(?:" + "|".join(_OPTIONS) + r")\b", lambda name: _OPTIONS[name[0]], text)


def reason(error: BaseException) -> str:
    """One word for scripts: the reason that the failure carries, else the name of its exit code."""
    if isinstance(error, CommandError):
        return error.reason
    if isinstance(error, FailureResponseException):
        return str(error.response_data.response_code) if error.response_data is not None else ExitCode.REFUSED.name
    carried = getattr(error, "failure_reason", None)
    if isinstance(carried, enum.Enum) and exit_code(error) is not ExitCode.TIMEOUT:
        return carried.name
    return exit_code(error).name
