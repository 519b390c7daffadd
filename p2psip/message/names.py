"""Names of header fields: long and compact forms, which hold lists, which must be alone; and names of methods."""

from __future__ import annotations

from p2psip.message.grammar import is_token

_COMPACT = {
    # RFC 3261 7.3.3, RFC 3515, RFC 3841, RFC 3892, RFC 4028, RFC 6665, RFC 8224
    "a": "Accept-Contact",
    "b": "Referred-By",
    "c": "Content-Type",
    "d": "Request-Disposition",
    "e": "Content-Encoding",
    "f": "From",
    "i": "Call-ID",
    "j": "Reject-Contact",
    "k": "Supported",
    "l": "Content-Length",
    "m": "Contact",
    "n": "Identity-Info",
    "o": "Event",
    "r": "Refer-To",
    "s": "Subject",
    "t": "To",
    "u": "Allow-Events",
    "v": "Via",
    "x": "Session-Expires",
    "y": "Identity",
}

_LISTS = """
    Accept Accept-Contact Accept-Encoding Accept-Language Accept-Resource-Priority Alert-Info Allow Allow-Events
    Call-Info Contact Content-Encoding Content-Language Error-Info Feature-Caps Geolocation History-Info In-Reply-To
    P-Asserted-Identity P-Associated-URI P-Preferred-Identity Path Permission-Missing Proxy-Require Reason
    Record-Route Recv-Info Reject-Contact Request-Disposition Require Resource-Priority Route Security-Client
    Security-Server Security-Verify Service-Route Supported Trigger-Consent Unsupported User-to-User Via Warning
"""

_OTHERS = """
    Answer-Mode Authentication-Info Authorization Call-ID Content-Disposition Content-ID Content-Length Content-Type
    CSeq Date Event Expires Flow-Timer From Geolocation-Error Geolocation-Routing Identity Identity-Info
    Info-Package Join Max-Breadth Max-Forwards MIME-Version Min-Expires Min-SE Organization P-Access-Network-Info
    P-Called-Party-ID P-Charging-Vector P-Early-Media P-Preferred-Service P-Visited-Network-ID Priority
    Priv-Answer-Mode Privacy Proxy-Authenticate Proxy-Authorization RAck Refer-Sub Refer-To Referred-By Replaces
    Reply-To Retry-After RSeq Server Session-Expires Session-ID SIP-ETag SIP-If-Match Subject
    Subscription-State Suppress-If-Match Target-Dialog Timestamp To User-Agent WWW-Authenticate
"""

LIST_FIELDS = frozenset(name.lower() for name in _LISTS.split())
"""Keys of the fields whose value is a comma-separated list (RFC 3261 7.3.1)."""

EMPTY_FIELDS = frozenset({"accept", "accept-encoding", "accept-language", "allow", "supported"})
"""Keys of the lists that may be empty (RFC 3261 25.1)."""

DIALOG_FIELDS = ("from", "to", "call-id", "cseq")
"""Keys of the fields that tell which transaction and dialog a message is of; none may come twice."""

SINGLE_FIELDS = ("content-length", "content-type", "max-forwards")
"""Keys of others with two of which a message has no clear meaning."""

SECRET_FIELDS = frozenset({"authorization", "proxy-authorization", "authentication-info", "proxy-authentication-info"})
"""Keys of the fields that are not shown, because they prove who somebody is."""

KNOWN_METHODS = frozenset(
    (
        "ACK",
        "BENOTIFY",
        "BYE",
        "CANCEL",
        "INFO",
        "INVITE",
        "MESSAGE",
        "NOTIFY",
        "OPTIONS",
        "PRACK",
        "PUBLISH",
        "REFER",
        "REGISTER",
        "SERVICE",
        "SUBSCRIBE",
        "UPDATE",
    )
)
"""Methods that the library knows, whether or not anybody takes them: 405 where nobody does, 501 for all others."""

_LONG = {name.lower(): name for name in (*_LISTS.split(), *_OTHERS.split())}

KEYS: dict[str, str] = {}
"""The usual spellings of the names we know -> the key, which is the long name in lower case."""
for _key, _name in _LONG.items():
    KEYS.update({_name: _key, _key: _key, _name.upper(): _key, _name.title(): _key})
for _letter, _name in _COMPACT.items():
    KEYS.update({_letter: _name.lower(), _letter.upper(): _name.lower()})


def field_key(name: str) -> str:
    """What names are compared by: the long form in lower case; "" when the text cannot be a name."""
    key = KEYS.get(name)
    if key is None:
        if not is_token(name):
            return ""
        key = name.lower()
        key = KEYS.get(key, key)
    return key


def shown_value(name: str, value: str) -> str:
    """The value of a field for people: ``***`` where it is a secret."""
    return "***" if field_key(name) in SECRET_FIELDS else value


def canonical_name(name: str) -> str:
    """The long form, spelt as its RFC does: ``v`` and ``VIA`` are ``Via``. Unknown names are returned as they are."""
    return _LONG.get(field_key(name), name)
