"""What a message says, in the shape of a conformance corpus' "facts", and where two such things differ."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Any

from p2psip.errors import MessageParsingException
from p2psip.message import (
    Credentials,
    CSeq,
    Date,
    MediaType,
    NameAddr,
    Parameterised,
    RAck,
    Request,
    Response,
    RetryAfter,
    SipUri,
    Timestamp,
    Via,
    WarningValue,
    canonical_name,
    field_key,
    parse_field,
    unescape,
)

Message = Request | Response

_VIEWS = {
    "via": "Via",
    "from": "From",
    "to": "To",
    "contact": "Contact",
    "route": "Route",
    "record_route": "Record-Route",
}
_SCALARS = ("call_id", "cseq", "max_forwards", "expires", "content_type")
_UNKNOWN = ("form", "via_error", "octets_after_headers", "encoding", "weekday")
_WHITE_SPACE = re.compile(r"[ \t]+")


def collapse(text: str) -> str:
    return _WHITE_SPACE.sub(" ", text)


def facts_of(message: Message) -> dict[str, Any]:
    """All that the corpus knows of a message, as this library reads it. A malformed value is its error."""
    headers = [
        {"name": name, "canonical": canonical_name(name), "value": collapse(value)} for name, value in message.headers
    ]
    body = message.body
    raw = message.to_bytes()
    facts: dict[str, Any] = {
        "start_line": message.start_line,
        "sip_version": message.sip_version,
        "headers": headers,
        "header_count": len(headers),
        "header_bytes": len(raw) - len(body),
        "body_length": len(body),
        "body_sha256": hashlib.sha256(body).hexdigest(),
        "content_length": message.content_length,
        "via_count": len(message.headers.get_all("Via")),
    }
    if isinstance(message, Request):
        facts.update(kind="request", method=message.method, request_uri=message.uri)
    else:
        facts.update(kind="response", status=message.status_code, reason=message.reason)
    for name, field in _VIEWS.items():
        if field in message.headers:
            facts[name] = _read(lambda field=field: plain(_view(message, field)))  # type: ignore[misc]
    for name in _SCALARS:
        value = _read(lambda name=name: _scalar(message, name))  # type: ignore[misc]
        if value is not None:
            facts[name] = value
    return facts


def _read(view: Any) -> Any:
    try:
        return view()
    except MessageParsingException as error:
        return f"malformed: {error}"


def _view(message: Message, field: str) -> Any:
    views = {
        "Via": "via",
        "From": "from_",
        "To": "to",
        "Contact": "contact",
        "Route": "route",
        "Record-Route": "record_route",
    }
    return getattr(message, views[field])


def _scalar(message: Message, name: str) -> Any:
    if name == "content_type":
        text = message.content_type
        return None if text is None else plain(parse_field("Content-Type", text))
    if name == "cseq" and "CSeq" not in message.headers:
        return None
    return plain(getattr(message, name))


def plain(value: Any) -> Any:
    """A typed value as the corpus writes it."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, CSeq | RAck | WarningValue | Timestamp):
        return value._asdict()
    if isinstance(value, MediaType | RetryAfter):
        return {**value._asdict(), "params": pairs(value.params)}
    if isinstance(value, Parameterised):
        return {"value": value.value, "params": pairs(value.params)}
    if isinstance(value, Via):
        return {
            "protocol": value.protocol,
            "version": value.version,
            "transport": value.transport,
            "host": value.host,
            "port": value.port,
            "params": pairs(value.params),
            "branch": value.branch,
        }
    if isinstance(value, NameAddr):
        address = {"display_name": value.display_name, "uri": str(value.uri), "uri_parts": uri_parts(value.uri)}
        return {**address, "params": pairs(value.params), "tag": value.tag}
    return value


def plain_field(name: str, text: str) -> Any:
    """The value of any header field as the tables of the corpus write it."""
    value = parse_field(name, text)
    key = field_key(name)
    if key in ("alert-info", "call-info", "error-info", "identity-info"):
        return text
    if key in ("accept-encoding", "accept-language"):
        return [[item.value, pairs(item.params)] for item in value]
    if key == "reason":
        return [{"protocol": item.value, "params": pairs(item.params)} for item in value]
    if key == "authentication-info":
        return pairs(value)
    if isinstance(value, Credentials):
        return {"scheme": value.scheme, "params": pairs(dict(value.params))}
    if isinstance(value, Date):
        return {**value._asdict(), "unix": value.unix}
    return plain(value)


def host_type(host: str) -> str:
    if host.startswith("["):
        return "IPv6"
    return "IPv4" if host.replace(".", "").isdigit() else "domain"


def uri_parts(uri: SipUri | str) -> dict[str, Any]:
    if isinstance(uri, str):
        scheme, _, opaque = uri.partition(":")
        return {"scheme": scheme.lower(), "opaque": opaque}
    return {
        "scheme": uri.scheme,
        "user": uri.user,
        "user_decoded": uri.decoded_user,
        "password": uri.password,
        "host": uri.host,
        "port": uri.port,
        "params": pairs(dict(uri.parameters)),
        "headers": [list(pair) for pair in uri.headers],
    }


def pairs(params: dict[str, str | None]) -> list[list[str | None]]:
    return [[name, value] for name, value in params.items()]


def differences(expected: Any, found: Any, path: str = "") -> Iterator[str]:
    """Where ``found`` is not what the corpus asks for. Keys that only one of the two has do not count."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key, value in expected.items():
            if key in found:
                yield from differences(value, found[key], f"{path}.{key}" if path else key)
            elif value is not None and key not in _UNKNOWN:
                yield f"{path}.{key}: expected {value!r}, not found"
    elif path.rpartition(".")[2] == "params":
        # Names of parameters compare without regard to case, and the library gives them in lower case.
        mine = [[name.lower(), value] for name, value in found]
        theirs = [[name.lower(), value] for name, value in expected]
        if not _same(theirs, mine):
            yield f"{path}: expected {theirs!r}, found {mine!r}"
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for position, (a, b) in enumerate(zip(expected, found, strict=True)):
            yield from differences(a, b, f"{path}[{position}]")
    elif not _same(expected, found):
        yield f"{path}: expected {str(expected)[:120]!r}, found {str(found)[:120]!r}"


def _same(expected: Any, found: Any) -> bool:
    if isinstance(expected, str) and isinstance(found, str):
        # What is not UTF-8 is written as Latin-1 there and with surrogates here: the octets are what counts.
        octets = found.encode("utf-8", "surrogateescape")
        return collapse(expected) == collapse(found) or expected.encode("latin-1", "replace") == octets
    return bool(expected == found)


def check_made_for(check: dict[str, Any], message: Message) -> Iterator[str]:
    """The facts that a torture message was made to test."""
    found: dict[str, Any] = {"to_user_decoded": _user(message.to), "from_user_decoded": _user(message.from_)}
    found["display_name"] = message.to.display_name
    if isinstance(message, Request):
        uri = message.request_uri
        assert isinstance(uri, SipUri)
        found.update(
            request_uri_user_decoded=uri.decoded_user,
            request_uri_host=uri.host,
            request_uri_port=uri.port,
            method_is_not=message.method,
        )
    contacts = message.contact
    if isinstance(contacts, list) and contacts:
        uris = [contact.uri for contact in contacts if isinstance(contact.uri, SipUri)]
        found.update(
            contact_count=len(contacts),
            contact_users_decoded=[uri.decoded_user for uri in uris],
            contact_user_decoded=uris[0].decoded_user,
            contact_params_decoded=_decoded(pairs(dict(uris[0].parameters))),
            contact_uri_params=pairs(dict(uris[0].parameters)),
            contact_header_params=pairs(contacts[0].params),
            contact_uri_headers_decoded=_decoded([list(pair) for pair in uris[0].headers]),
        )
    for name, value in check.items():
        if name == "part_count":
            continue  # bodies are opaque to the codec
        if name == "method_is_not":
            if found[name] == value:
                yield f"the method is {value}"
        elif name == "display_name" and value not in (message.to.display_name, message.from_.display_name):
            yield from differences(value, next(c.display_name for c in contacts if isinstance(c, NameAddr)), name)
        elif name != "display_name":
            yield from differences(value, found.get(name), name)


def _user(address: NameAddr) -> str | None:
    return address.uri.decoded_user if isinstance(address.uri, SipUri) else None


def _decoded(items: list[list[str | None]]) -> list[list[str | None]]:
    return [[None if part is None else unescape(part) for part in item] for item in items]
