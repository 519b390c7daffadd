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


def excerpt(data: bytes, limit: int = 200) -> str:
    """The beginning of peer's bytes for a log line: secrets masked, control characters escaped, cut to ``limit``."""
    text = mask(data[: 4 * limit]).decode("utf-8", "backslashreplace")
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    return shown if len(shown) <= limit else shown[:limit] + "..."
