"""The flows of RFC 3665 that the corpus of files does not have, as they are printed; ``printed_flows`` says how to read
them, and of those messages that no user agent sees, none is here.

Left out are ``received``, ``transport`` in URIs, and credentials, which would have to be computed. Mended are: the ACK to
a refusal has the Route of its INVITE (RFC 3261 17.1.1.3), the answer to CANCEL a tag in To (RFC 3261 9.2), and in 3.4
Alice's second try is of the same call, as RFC 3263 4.3 has it, and not a new one.
"""

from __future__ import annotations

from printed_flows import Dialogs, Network

NETWORK = Network(
    scheme="sip",
    transport="TCP",
    port=5060,
    hosts={
        "A": "client.atlanta.example.com",
        "B": "client.biloxi.example.com",
        "C": "client.chicago.example.com",
        "1": "ss1.atlanta.example.com",
        "2": "ss2.biloxi.example.com",
        "3": "ss3.chicago.example.com",
    },
    users={"alice": "A", "bob": "B"},
    addresses={"A": "192.0.2.101", "B": "192.0.2.201"},
    subject="-",
)
IN_CHICAGO = Network(
    scheme="sip",
    transport="TCP",
    port=5060,
    hosts=NETWORK.hosts,
    users={"alice": "A", "bob": "C"},
    addresses={"A": "192.0.2.101", "C": "192.0.2.100"},
    subject="-",
)
ALICE, BOB = "Alice <sip:alice@atlanta.example.com>", "Bob <sip:bob@biloxi.example.com>"


def _dialogs(call_id: str, **tags: str) -> Dialogs:
    """Between Alice and each of those who answer for Bob, by their tags; ``_1`` and so on are the keys."""
    return {key[1:]: (call_id, {"A": (ALICE, "9fxced76sl"), "B": (BOB, tag)}) for key, tag in tags.items()}


HERS = "sdp=alice/2890844526/2890844526/49172"
HIS = "sdp=bob/2890844527/2890844527/3456"
CALL_ID = "2xTb9vxSit55XU7p8@atlanta.example.com"

TWO_PROXIES = NETWORK.messages(
    _dialogs("3848276298220188511@atlanta.example.com", _0="3flal12sf", _1="314159"),
    {},
    f"""
F1 INVITE sip:bob@biloxi.example.com | 0 A- 1 | A:74b43 | Route=1 c=A {HERS}
F2 407 | 0 A 1 INVITE | A:74b43 | challenge=atlanta.example.com/f84f1cec41e6cbe5aea9c8e88d359
F3 ACK sip:bob@biloxi.example.com | 0 A 1 | A:74b43 | Route=1
F4 INVITE sip:bob@biloxi.example.com | 0 A- 2 | A:74bf9 | Route=1 c=A {HERS}
F6 100 | 1 A- 2 INVITE | A:74bf9
F7 INVITE sip:bob@client.biloxi.example.com | 1 A- 2 | 2:721e4.1 1:2d4790.1 A:74bf9 | Record-Route=2,1 c=A {HERS}
F9 180 | 1 A 2 INVITE | 2:721e4.1 1:2d4790.1 A:74bf9 | Record-Route=2,1 c=B
F11 180 | 1 A 2 INVITE | A:74bf9 | Record-Route=2,1 c=B
F12 200 | 1 A 2 INVITE | 2:721e4.1 1:2d4790.1 A:74bf9 | Record-Route=2,1 c=B {HIS}
F14 200 | 1 A 2 INVITE | A:74bf9 | Record-Route=2,1 c=B {HIS}
F15 ACK sip:bob@client.biloxi.example.com | 1 A 2 | A:74b76 | Route=1,2
F17 ACK sip:bob@client.biloxi.example.com | 1 A 2 | 2:721e4.1 1:2d4790.1 A:74b76
F18 BYE sip:alice@client.atlanta.example.com | 1 B 1 | B:nashds7 | Route=2,1
F20 BYE sip:alice@client.atlanta.example.com | 1 B 1 | 1:2d4790.1 2:721e4.1 B:nashds7
F21 200 | 1 B 1 BYE | 1:2d4790.1 2:721e4.1 B:nashds7
F23 200 | 1 B 1 BYE | B:nashds7
""",
)
"""3.2: the first proxy wants credentials."""

PROXY_FAILURE = NETWORK.messages(
    _dialogs("4Fde34wkd11wsGFDs3@atlanta.example.com", _0="2421452", _1="314159"),
    {},
    f"""
F1 INVITE sip:bob@biloxi.example.com | 0 A- 1 | A:465b6d | Route=1 c=A {HERS}
F8 INVITE sip:bob@biloxi.example.com | 0 A- 1 | A:74b8a | c=A {HERS}
F9 407 | 0 A 1 INVITE | A:74b8a | challenge=biloxi.example.com/1ae6cbe5ea9c8e8df84fqnlec434a359
F10 ACK sip:bob@biloxi.example.com | 0 A 1 | A:74b8a
F11 INVITE sip:bob@biloxi.example.com | 0 A- 2 | A:74bf9 | c=A {HERS}
F12 INVITE sip:bob@client.biloxi.example.com | 1 A- 2 | 2:721e4.1 A:74bf9 | Record-Route=2 c=A {HERS}
F13 100 | 1 A- 2 INVITE | A:74bf9
F14 180 | 1 A 2 INVITE | 2:721e4.1 A:74bf9 | Record-Route=2 c=B
F15 180 | 1 A 2 INVITE | A:74bf9 | Record-Route=2 c=B
F16 200 | 1 A 2 INVITE | 2:721e4.1 A:74bf9 | Record-Route=2 c=B {HIS}
F17 200 | 1 A 2 INVITE | A:74bf9 | Record-Route=2 c=B {HIS}
F18 ACK sip:bob@client.biloxi.example.com | 1 A 2 | A:74b8g | Route=2
F19 ACK sip:bob@client.biloxi.example.com | 1 A 2 | 2:721e4.1 A:74b8g
F20 BYE sip:alice@client.atlanta.example.com | 1 B 1 | B:nashds7 | Route=2
F21 BYE sip:alice@client.atlanta.example.com | 1 B 1 | 2:721e4.1 B:nashds7
F22 200 | 1 B 1 BYE | 2:721e4.1 B:nashds7
F23 200 | 1 B 1 BYE | B:nashds7
""",
)
"""3.4: the first proxy says nothing, and the second wants credentials."""

REDIRECTION = IN_CHICAGO.messages(
    _dialogs(CALL_ID, _0="53fHlqlQ2", _1="314159"),
    {},
    f"""
F1 INVITE sip:bob@biloxi.example.com | 0 A- 1 | A:bf9f44 | c=A
F2 302 | 0 A 1 INVITE | A:bf9f44 | Contact=<sip:bob@chicago.example.com>
F3 ACK sip:bob@biloxi.example.com | 0 A 1 | A:bf9f44
F4 INVITE sip:bob@chicago.example.com | 1 A- 2 | A:74bf9 | c=A
F5 INVITE sip:bob@client.chicago.example.com | 1 A- 2 | 3:721e.1 A:74bf9 | Record-Route=3 c=A
F6 100 | 1 A- 2 INVITE | A:74bf9
F7 180 | 1 A 2 INVITE | 3:721e.1 A:74bf9 | Record-Route=3 c=C
F8 180 | 1 A 2 INVITE | A:74bf9 | Record-Route=3 c=C
F9 200 | 1 A 2 INVITE | 3:721e.1 A:74bf9 | Record-Route=3 c=C {HIS}
F10 200 | 1 A 2 INVITE | A:74bf9 | Record-Route=3 c=C {HIS}
F11 ACK sip:bob@client.chicago.example.com | 1 A 2 | A:74bq9 | Route=3 {HERS}
F12 ACK sip:bob@client.chicago.example.com | 1 A 2 | 3:721e.1 A:74bq9 | {HERS}
F13 BYE sip:alice@client.atlanta.example.com | 1 B 1 | C:fgaw2 | Route=3
F14 BYE sip:alice@client.atlanta.example.com | 1 B 1 | 3:721e.1 C:fgaw2
F15 200 | 1 B 1 BYE | 3:721e.1 C:fgaw2
F16 200 | 1 B 1 BYE | C:fgaw2
""",
)
"""3.6: Bob is elsewhere; the offer is in the 200 and the answer in the ACK."""

BEGINNING = f"""
F1 INVITE sip:bob@biloxi.example.com | 1 A- 1 | A:74bf9 | Route=1 c=A {HERS}
F3 100 | 1 A- 1 INVITE | A:74bf9
F4 INVITE sip:bob@client.biloxi.example.com | 1 A- 1 | 2:721e4.1 1:2d4790.1 A:74bf9 | Record-Route=2,1 c=A {HERS}
F6 180 | 1 A 1 INVITE | 2:721e4.1 1:2d4790.1 A:74bf9 | Record-Route=2,1 c=B
F8 180 | 1 A 1 INVITE | A:74bf9 | Record-Route=2,1 c=B
"""

NO_ANSWER = NETWORK.messages(
    _dialogs(CALL_ID, _1="314159"),
    {},
    BEGINNING
    + """
F9 CANCEL sip:bob@biloxi.example.com | 1 A- 1 | A:74bf9 | Route=1
F10 200 | 1 A- 1 CANCEL | A:74bf9
F13 CANCEL sip:bob@client.biloxi.example.com | 1 A- 1 | 2:721e4.1
F14 200 | 1 A 1 CANCEL | 2:721e4.1
F15 487 | 1 A 1 INVITE | 2:721e4.1 1:2d4790.1 A:74bf9
F16 ACK sip:bob@client.biloxi.example.com | 1 A 1 | 2:721e4.1
F19 487 | 1 A 1 INVITE | A:74bf9
F20 ACK sip:bob@biloxi.example.com | 1 A 1 | A:74bf9 | Route=1
""",
)
"""3.8: Alice takes it back."""

NO_RESPONSE = NETWORK.messages(
    _dialogs(CALL_ID, _1="314159"),
    {},
    BEGINNING
    + """
F14 480 | 1 A 1 INVITE | A:74bf9
F15 ACK sip:bob@biloxi.example.com | 1 A 1 | A:74bf9 | Route=1
""",
)
"""3.10: a proxy gives up in Bob's place, who never says anything; so it has no part for him, and does not ring."""

UNAVAILABLE = NETWORK.messages(
    _dialogs(CALL_ID, _1="314159"),
    {},
    BEGINNING
    + """
F9 480 | 1 A 1 INVITE | 2:721e4.1 1:2d4790.1 A:74bf9
F10 ACK sip:bob@client.biloxi.example.com | 1 A 1 | 2:721e4.1
F13 480 | 1 A 1 INVITE | A:74bf9
F14 ACK sip:bob@biloxi.example.com | 1 A 1 | A:74bf9 | Route=1
""",
)
"""3.11: it rings, and then Bob cannot be had."""
