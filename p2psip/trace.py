"""What goes over the wire, for people: a copy of each message without the secrets in it."""

from __future__ import annotations

import re

_SECRET = re.compile(
    rb"(?im)^((?:proxy-)?authorization|(?:proxy-)?authentication-info)([ \t]*:)[^\r\n]*(?:\r?\n[ \t][^\r\n]*)*"
)


def mask(data: bytes) -> bytes:
    """The message with ``***`` in place of what Authorization, Proxy-Authorization and their answers say."""
    head, blank, body = data.partition(b"\r\n\r\n")
    return _SECRET.sub(rb"\1\2 ***", head) + blank + body


_TOLD = (
    # What secrets look like outside of header fields, and what is left of them.
    (
        re.compile(
            r"(?i)\b((?:proxy-)?(?:authorization|authentication-info)[ \t]*[:=])[^\r\n]*(?:\r?\n[ \t][^\r\n]*)*"
        ),
        r"\1 ***",
    ),
    (
        re.compile(
            r"(?i)\b((?:response|rspauth|password|passwd|secret)[ \t]*[=:][ \t]*)(?:\"[^\"]*\"?|'[^']*'?|[^\s,;'\"]+)"
        ),
        r"\1***",
    ),
    (re.compile(r"(?i)\b(sips?:[^@:;?\s<>\"]*):[^@\s<>\"]*@"), r"\1:***@"),
    (re.compile(r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"), "***"),
)


def excerpt(data: bytes | str, limit: int = 200) -> str:
    """The beginning of a peer's words for a log line: secrets masked, control characters escaped, cut to ``limit``."""
    text = data[: 4 * limit]
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    for secret, rest in _TOLD:
        text = secret.sub(rest, text)
    shown = _escaped(text, "")
    return shown if len(shown) <= limit else shown[:limit] + "..."


def readable(data: bytes) -> str:
    """All of it for people, line ends and tabs kept; what could steer a terminal is escaped."""
    return _escaped(data.decode("utf-8", "backslashreplace").replace("\r\n", "\n"), "\n\t")


_UNUSUAL = re.compile(r"[^\x20-\x7e]")


def _escaped(text: str, kept: str) -> str:
    def escape(match: re.Match[str]) -> str:
        c = match[0]
        return c if c.isprintable() or c in kept else c.encode("unicode_escape", "surrogatepass").decode("ascii")

    return _UNUSUAL.sub(escape, text)
