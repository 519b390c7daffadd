"""What a hostile peer puts into its messages: header fields, bodies and pieces of octets, good ones and bad ones."""

from __future__ import annotations

import functools

Fields = tuple[tuple[str, str], ...]

CONTACT = ("Contact", "<sip:them@them.example;transport=tls>")
DIGEST = 'Digest realm="r", nonce="n", qop="auth", algorithm=SHA-256'
LONG = "x" * 300

EXTRAS: tuple[Fields, ...] = (
    (),
    (CONTACT,),
    (("Contact", "*"),),
    (("Contact", '"a\\\0" <sip:them@them.example>;expires=5, <tel:+1>'),),
    (("Contact", "<sip:a@a.example?X-Smuggled=%0d%0aX-Smuggled:%201>"),),
    (("Contact", "<sips:b@b.example>;q=0.5, <sip:c@c.example;maddr=192.0.2.9>, <sip:d@d.example;method=BYE>"),),
    (("Contact", "<http://a.example/>"),),
    (("Contact", "<sip:[2001:db8::1]:5061;lr>"),),
    (("Contact", "not <a"),),
    (CONTACT, ("Supported", "100rel, timer, replaces, norefersub"), ("Allow", "INVITE, ACK, BYE, UPDATE, PRACK")),
    (("Require", "100rel"), ("RSeq", "1"), CONTACT),
    (("Require", "100rel"), ("RSeq", "2"), CONTACT),
    (("Require", "100rel"), ("RSeq", "4294967295"), CONTACT),
    (("Require", "100rel"), ("RSeq", "x")),
    (("Require", "100rel, timer"), CONTACT),
    (("Require", "unknown, foo"),),
    (("Require", ","),),
    (("Supported", "100rel"), CONTACT),
    (("RAck", "{rack}"),),
    (("RAck", "1 1 INVITE"),),
    (("RAck", "99999999999 1 INVITE"),),
    (("Event", "{event}"), ("Subscription-State", "active;expires=3600"), CONTACT),
    (("Event", "{event}"), ("Subscription-State", "terminated;reason=deactivated"), CONTACT),
    (("Event", "{event}"), ("Subscription-State", "terminated;reason=probation;retry-after=4294967295"), CONTACT),
    (("Event", "{event}"), ("Subscription-State", "pending;expires=0"), CONTACT),
    (("Event", "presence"), CONTACT),
    (("Event", "presence"), ("Subscription-State", "active"), CONTACT),
    (("Event", "presence;id=1"), ("Expires", "0"), CONTACT),
    (("Event", "refer"), ("Subscription-State", "active;expires=4294967295"), CONTACT),
    (("Event", "refer;id={number}"), ("Subscription-State", "active;expires=60"), CONTACT),
    (("Event", "refer;id={number}"), ("Subscription-State", "terminated;reason=noresource"), CONTACT),
    (("Event", "refer;id=99"), ("Expires", "60")),
    (("Event", ";;="), ("Subscription-State", ";;=;")),
    (("Event", ""), ("Subscription-State", "")),
    (("Subscription-State", "invented;expires=99999999999;retry-after=-1;reason=\u00e9"),),
    (("Expires", "0"),),
    (("Expires", "1"),),
    (("Expires", "3600"),),
    (("Expires", "4294967295"),),
    (("Expires", "99999999999999999999"),),
    (("Min-Expires", "7200"),),
    (("Min-Expires", "4294967295"),),
    (("Retry-After", "1"),),
    (("Retry-After", "0"),),
    (("Retry-After", "4294967295 (never) ;duration=1"),),
    (("SIP-ETag", "tag"), ("Expires", "3600")),
    (("SIP-ETag", "tag"), ("Expires", "0")),
    (("SIP-ETag", 'not a "token\\'), ("Expires", "60")),
    (("SIP-ETag", "\udcff"),),
    (("Session-Expires", "90;refresher=uac"), ("Supported", "timer"), CONTACT),
    (("Session-Expires", "90;refresher=uas"), ("Require", "timer"), CONTACT),
    (("Session-Expires", "1;refresher=nobody"),),
    (("Session-Expires", "0"), ("Min-SE", "999999999")),
    (("Session-Expires", "999999999"), ("Min-SE", "90")),
    (("Min-SE", "1800"),),
    (("Min-SE", "4294967296;x"),),
    (("WWW-Authenticate", DIGEST),),
    (("WWW-Authenticate", DIGEST + ", stale=true"),),
    (("Proxy-Authenticate", DIGEST), ("WWW-Authenticate", DIGEST)),
    (("Proxy-Authenticate", 'Digest realm="other", nonce="\\"", qop="auth-int", algorithm=SHA-512-256-sess'),),
    (("WWW-Authenticate", 'Digest realm="a\\\0", nonce="\\\1", opaque="\\\x7f", algorithm=SHA-256'),),
    (("WWW-Authenticate", "Digest"), ("Proxy-Authenticate", 'Basic realm="x"')),
    (("WWW-Authenticate", f'Digest realm="{LONG}", nonce="{LONG}", algorithm=SHA-256'),),
    (("Authentication-Info", 'nextnonce="n2", qop=auth, rspauth="0", cnonce="", nc=1'),),
    (("Authentication-Info", 'nextnonce="\\\0"'),),
    (("Authorization", 'Digest username="them", realm="us", nonce="x", uri="x", response="x", qop=auth, nc=00000001'),),
    (("Authorization", 'Digest username="them", realm="us", nonce="0-0-0", algorithm=SHA-256, qop=auth, nc=\u0661'),),
    (("Refer-To", "<sip:c@c.example>"), CONTACT),
    (("Refer-To", "<sip:c@c.example?Replaces={call}%3Bto-tag%3D{ours}%3Bfrom-tag%3D{theirs}>"), CONTACT),
    (("Refer-To", "<sip:c@c.example?X-Smuggled=%0D%0AX-Smuggled%3A%201&Replaces=%0d%0aX-Smuggled:1>"), CONTACT),
    (("Refer-To", "<sip:c@c.example;method=%0d%0a>"), ("Refer-Sub", "false"), CONTACT),
    (("Refer-To", "sip:c@c.example?a=b"), CONTACT),
    (("Refer-To", "<tel:+1>"), ("Refer-To", "<tel:+2>"), CONTACT),
    (("Refer-Sub", "false"), ("Refer-To", "<mailto:a@b.example>"), CONTACT),
    (("Referred-By", '"\\\0" <sip:x@x.example>'),),
    (("Replaces", "{call};to-tag={ours};from-tag={theirs}"), CONTACT),
    (("Replaces", "{call};from-tag={ours};to-tag={theirs};early-only"), CONTACT),
    (("Join", "{call};to-tag={ours};from-tag={theirs}"), CONTACT),
    (("Replaces", "{call}"), ("Join", "{call}"), CONTACT),
    (("Replaces", ";;;to-tag;from-tag="), CONTACT),
    (("Record-Route", "<sip:p@p.example;lr>, <sips:q.example;lr>"), CONTACT),
    (("Record-Route", "<sip:strict.example>"), CONTACT),
    (("Record-Route", "<tel:+1>"), CONTACT),
    (("Record-Route", "<sip:p.example;lr>;x=\\"), CONTACT),
    (("Record-Route", "sip:p.example"), CONTACT),
    (("Route", "<sip:us.example;lr>"),),
    (("Via", "SIP/2.0/TLS other.example;branch={branch}"),),
    (("Via", "SIP/2.0/TLS a.example, SIP/2.0/TLS [::1]:1;received=::1"),),
    (("Via", "nonsense"),),
    (("Timestamp", "1.5 0.5"),),
    (("Timestamp", "\udcfe"),),
    (("Warning", '399 x "\\\0"'),),
    (("Reason", 'SIP;cause=200;text="elsewhere"'),),
    (("P-Asserted-Identity", "<sip:ceo@us.example>, <tel:+1>"),),
    (("Content-Type", "multipart/mixed"),),
    (("Content-Type", "multipart/mixed;boundary="),),
    (("Content-Type", "nonsense"),),
    (("Content-Type", "message/sipfrag;version=2.0"),),
    (("Content-Disposition", "early-session;handling=required"), ("Content-Encoding", "gzip")),
    (("X-Smuggled", "1"), ("Subject", "\u00e9\udcff\t" + LONG)),
    (("To", "<sip:twice@us.example>"),),
    (("CSeq", "1 ACK"),),
    (("Max-Forwards", "256"),),
    (("Max-Forwards", "0"),),
    (("Call-ID", "twice"),),
)
"""Groups of fields that a message may bear besides those that it must have; in braces what was learned from us."""

BODIES: tuple[tuple[str, bytes], ...] = (
    ("", b""),
    ("application/sdp", b"v=0\r\ns=them\r\n"),
    ("message/sipfrag;version=2.0", b"SIP/2.0 200 OK\r\n"),
    ("message/sipfrag", b"SIP/2.0 \xff99 \r\n"),
    ("message/sipfrag;version=2.0", b"SIP/2.0 180 Ringing"),
    ("multipart/mixed;boundary=b", b"--b\r\n\r\n--b\r\n\r\n"),
    ("text/plain", b"\r\n\r\nINVITE sip:us@us.example SIP/2.0\r\n\r\n"),
    ("application/octet-stream", bytes(range(256))),
    ("", b"without a type"),
)

PIECES: tuple[bytes, ...] = (
    *(b"", b"\r\n", b"\r\n\r\n", b"\r", b"\n", b"\0", b" ", b"\t", b'"', b'"\\\0"', b"\\", b"<", b">", b";", b","),
    *(b":", b"=", b"@", b"%", b"%0d%0a", b"/", b"?", b"\xff", b"\xc3\xa9", b"1", b"0", b"99999999999", b"-1", b"a"),
    *(b"sip:", b"sips:", b"tel:", b"SIP/2.0", b"SIP/2.0/TLS ", b"INVITE", b"ACK", b"CANCEL", b"BYE", b";tag=x"),
    *(b"branch=", b"z9hG4bK", b"\r\nVia: ", b"\r\nContent-Length: 5", b"\r\nX-Smuggled: 1", b"\r\n folded"),
    *(b"\r\nl: 0", b"\r\nTo: <sip:b>", b"INVITE sip:a SIP/2.0\r\n\r\n", b"SIP/2.0 200 OK\r\n\r\n", b"x" * 9000),
)


@functools.cache
def our_headers() -> frozenset[str]:
    """Every field that the engine writes, or copies from a request into its answer."""
    return frozenset(
        [
            *("via", "from", "to", "call-id", "cseq", "contact", "max-forwards", "route", "record-route", "timestamp"),
            *("allow", "supported", "unsupported", "require", "accept", "user-agent", "content-type", "content-length"),
            *("retry-after", "expires", "min-expires", "event", "subscription-state", "allow-events", "refer-to"),
            *("referred-by", "refer-sub", "replaces", "rseq", "rack", "session-expires", "min-se", "reason", "warning"),
            *("authorization", "proxy-authorization", "www-authenticate", "sip-if-match", "i", "f", "t", "v"),
        ]
    )
