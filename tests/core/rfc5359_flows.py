"""The flows of RFC 5359 for holding and transferring calls, as they are printed; ``printed_flows`` says how to read them.

Left out are ``received``, Allow and Supported in ACK, where RFC 3261 does not have them, and ``+sip.rendering``, which is
for an application to say.

The print has some slips, which are mended here: in 2.2 the Call-ID of F19; in 2.3 requests without Max-Forwards, and a
Contact of Alice's in F20 that is another one than before; in 2.4 Referred-By without a scheme and the branch of F16; in
2.5 Carol's Contact without ``gr`` in some messages, though the text relies on it, and the branch of F25; here and there
the host in Via of another machine; in 2.6 the tags in Replaces, which RFC 3891 has the other way round. The message to
Carol in 2.6 is like any other (RFC 3428), and not here.
"""

from __future__ import annotations

from printed_flows import Network

HOSTS = {
    "A": "client.atlanta.example.com",
    "B": "client.biloxi.example.com",
    "C": "client.chicago.example.com",
    "M": "server.example.com",
    "P": "ss1.example.com",
}
NETWORK = Network(
    scheme="sips",
    transport="TLS",
    port=5061,
    hosts=HOSTS,
    users={"alice": "A", "bob": "B", "carol": "C", "MusicServer": "M"},
    more="Allow: INVITE, ACK, CANCEL, OPTIONS, BYE, REFER, NOTIFY\r\nSupported: replaces",
)
ALICE, BOB = "Alice <sips:alice@atlanta.example.com>", "Bob <sips:bob@biloxi.example.com>"
CAROL, MUSIC = "Carol <sips:carol@chicago.example.com>", "Music Server <sips:music@server.example.com>"
ALICE_GRUU, CAROL_GRUU = "<sips:a8342043f@atlanta.example.com;gr>", "<sips:39itp34klkd@chicago.example.com;gr>"

HOLD = NETWORK.messages(
    {"1": ("12345601@atlanta.example.com", {"A": (ALICE, "1234567"), "B": (BOB, "314159")})},
    {},
    """
F1 INVITE sips:bob@biloxi.example.com | 1 A- 1 | A:74bf9 | c=A sdp=alice/2890844526/2890844526/49170
F2 INVITE sips:bob@client.biloxi.example.com | 1 A- 1 | P:83749.1 A:74bf9 | Record-Route=P c=A
    sdp=alice/2890844526/2890844526/49170
F3 100 | 1 A- 1 INVITE | A:74bf9
F4 180 | 1 A 1 INVITE | P:83749.1 A:74bf9 | Record-Route=P c=B
F5 180 | 1 A 1 INVITE | A:74bf9 | Record-Route=P c=B
F6 200 | 1 A 1 INVITE | P:83749.1 A:74bf9 | Record-Route=P c=B sdp=bob/2890844527/2890844527/3456
F7 200 | 1 A 1 INVITE | A:74bf9 | Record-Route=P c=B sdp=bob/2890844527/2890844527/3456
F8 ACK sips:bob@client.biloxi.example.com | 1 A 1 | A:74bf92 | Route=P
F9 ACK sips:bob@client.biloxi.example.com | 1 A 1 | P:837492.1 A:74bf92
F10 INVITE sips:alice@client.atlanta.example.com | 1 B 1 | B:nashds7 | Route=P c=B
    sdp=bob/2890844527/2890844528/3456/sendonly
F11 INVITE sips:alice@client.atlanta.example.com | 1 B 1 | P:83749.1 B:nashds7 | Record-Route=P c=B
    sdp=bob/2890844527/2890844528/3456/sendonly
F12 200 | 1 B 1 INVITE | P:83749.1 B:nashds7 | Record-Route=P c=A sdp=alice/2890844526/2890844527/49170/recvonly
F13 200 | 1 B 1 INVITE | B:nashds7 | Record-Route=P c=A sdp=alice/2890844526/2890844527/49170/recvonly
F14 ACK sips:alice@client.atlanta.example.com | 1 B 1 | B:nashds72 | Route=P
F15 ACK sips:alice@client.atlanta.example.com | 1 B 1 | P:83749.1 B:nashds72
F16 INVITE sips:alice@client.atlanta.example.com | 1 B 2 | B:nashds73 | Route=P c=B sdp=bob/2890844527/2890844529/3456
F17 INVITE sips:alice@client.atlanta.example.com | 1 B 2 | P:837493.1 B:nashds73 | Record-Route=P c=B
    sdp=bob/2890844527/2890844529/3456
F18 200 | 1 B 2 INVITE | P:837493.1 B:nashds73 | Record-Route=P c=A sdp=alice/2890844526/2890844528/49170
F19 200 | 1 B 2 INVITE | B:nashds73 | Record-Route=P c=A sdp=alice/2890844526/2890844528/49170
F20 ACK sips:alice@client.atlanta.example.com | 1 B 2 | B:nashds74 | Route=P
F21 ACK sips:alice@client.atlanta.example.com | 1 B 2 | P:837494.1 B:nashds74
F22 BYE sips:bob@client.biloxi.example.com | 1 A 2 | A:74bf97 | Route=P
F23 BYE sips:bob@client.biloxi.example.com | 1 A 2 | P:837497.1 A:74bf97
F24 200 | 1 A 2 BYE | P:837497.1 A:74bf97
F25 200 | 1 A 2 BYE | A:74bf97
""",
)
"""2.1: Alice calls Bob, who puts her on hold for a while."""

CONSULTATION = NETWORK.messages(
    {
        "1": ("12345600@atlanta.example.com", {"A": (ALICE, "1234567"), "B": (BOB, "314159")}),
        "2": ("9876543210@biloxi.example.com", {"B": (BOB, "8675309"), "C": (CAROL, "456654")}),
    },
    {},
    """
F1 INVITE sips:bob@biloxi.example.com | 1 A- 1 | A:74bf9 | c=A sdp=alice/2890844526/2890844526/49170
F2 INVITE sips:bob@client.biloxi.example.com | 1 A- 1 | P:83749.1 A:74bf9 | Record-Route=P c=A
    sdp=alice/2890844526/2890844526/49170
F3 100 | 1 A- 1 INVITE | A:74bf9
F4 180 | 1 A 1 INVITE | P:83749.1 A:74bf9 | Record-Route=P c=B
F5 180 | 1 A 1 INVITE | A:74bf9 | Record-Route=P c=B
F6 200 | 1 A 1 INVITE | P:83749.1 A:74bf9 | Record-Route=P c=B sdp=bob/2890844527/2890844527/3456
F7 200 | 1 A 1 INVITE | A:74bf9 | Record-Route=P c=B sdp=bob/2890844527/2890844527/3456
F8 ACK sips:bob@client.biloxi.example.com | 1 A 1 | A:74bf45 | Route=P
F9 ACK sips:bob@client.biloxi.example.com | 1 A 1 | P:837494.1 A:74bf45
F10 INVITE sips:alice@client.atlanta.example.com | 1 B 1 | B:nashds7 | Route=P c=B
    sdp=bob/2890844527/2890844528/3456/sendonly
F11 INVITE sips:alice@client.atlanta.example.com | 1 B 1 | P:837497.1 B:nashds7 | Record-Route=P c=B
    sdp=bob/2890844527/2890844528/3456/sendonly
F12 200 | 1 B 1 INVITE | P:837497.1 B:nashds7 | Record-Route=P c=A sdp=alice/2890844526/2890844527/49170/recvonly
F13 200 | 1 B 1 INVITE | B:nashds7 | Record-Route=P c=A sdp=alice/2890844526/2890844527/49170/recvonly
F14 ACK sips:alice@client.atlanta.example.com | 1 B 1 | B:nashdsg | Route=P
F15 ACK sips:alice@client.atlanta.example.com | 1 B 1 | P:8374.1 B:nashdsg
F16 INVITE sips:carol@chicago.example.com | 2 B- 1 | B:nashds22 | c=B sdp=bob/2890844834/2890844834/50170
F17 INVITE sips:carol@client.chicago.example.com | 2 B- 1 | P:83749a.1 B:nashds22 | Record-Route=P c=B
    sdp=bob/2890844834/2890844834/50170
F18 100 | 2 B- 1 INVITE | B:nashds22
F19 180 | 2 B 1 INVITE | P:83749a.1 B:nashds22 | Record-Route=P c=C
F20 180 | 2 B 1 INVITE | B:nashds22 | Record-Route=P c=C
F21 200 | 2 B 1 INVITE | P:83749a.1 B:nashds22 | Record-Route=P c=C sdp=carol/2890844922/2890844922/3456
F22 200 | 2 B 1 INVITE | B:nashds22 | Record-Route=P c=C sdp=carol/2890844922/2890844922/3456
F23 ACK sips:carol@client.chicago.example.com | 2 B 1 | B:nashds24 | Route=P
F24 ACK sips:carol@client.chicago.example.com | 2 B 1 | P:83749b.1 B:nashds24
F25 BYE sips:carol@client.chicago.example.com | 2 B 2 | B:nashds7j | Route=P
F26 BYE sips:carol@client.chicago.example.com | 2 B 2 | P:83749k.1 B:nashds7j
F27 200 | 2 B 2 BYE | P:83749k.1 B:nashds7j
F28 200 | 2 B 2 BYE | B:nashds7j
F29 INVITE sips:alice@client.atlanta.example.com | 1 B 2 | B:nashds7b | Route=P c=B sdp=bob/2890844527/2890844529/3456
F30 INVITE sips:alice@client.atlanta.example.com | 1 B 2 | P:83749q.1 B:nashds7b | Record-Route=P c=B
    sdp=bob/2890844527/2890844529/3456
F31 200 | 1 B 2 INVITE | P:83749q.1 B:nashds7b | Record-Route=P c=A sdp=alice/2890844526/2890844528/49170
F32 200 | 1 B 2 INVITE | B:nashds7b | Record-Route=P c=A sdp=alice/2890844526/2890844528/49170
F33 ACK sips:alice@client.atlanta.example.com | 1 B 2 | B:nashds7d7 | Route=P
F34 ACK sips:alice@client.atlanta.example.com | 1 B 2 | P:8374.1 B:nashds7d7
F35 BYE sips:bob@client.biloxi.example.com | 1 A 2 | A:74bf10 | Route=P
F36 BYE sips:bob@client.biloxi.example.com | 1 A 2 | P:8379.1 A:74bf10
F37 200 | 1 A 2 BYE | P:8379.1 A:74bf10
F38 200 | 1 A 2 BYE | A:74bf10
""",
)
"""2.2: Alice calls Bob, who puts her on hold and calls Carol."""

MUSIC_ON_HOLD = NETWORK.messages(
    {
        "1": ("12345600@atlanta.example.com", {"A": (ALICE, "1234567"), "B": (BOB, "23431")}),
        "2": ("4802029847@biloxi.example.com", {"B": (BOB, "02134"), "M": (MUSIC, "56323")}),
        "3": (
            "a5-75-34-12-76@server.example.com",
            {"M": ("<sips:music@server.example.com>", "0111"), "A": (ALICE_GRUU, "098594")},
        ),
        "4": ("uioewrjk2k2were", {"B": (BOB, "4i323pr"), "A": (f"Alice {ALICE_GRUU}", "6654323")}),
    },
    {"A": ALICE_GRUU, "M": "<sips:music@server.example.com>"},
    """
F1 INVITE sips:bob@biloxi.example.com | 1 A- 1 | A:74bf9 | c=A sdp=alice/2890844526/2890844526/49170
F2 180 | 1 A 1 INVITE | A:74bf9 | c=B
F3 200 | 1 A 1 INVITE | A:74bf9 | c=B sdp=bob/2890844527/2890844527/3456
F4 ACK sips:bob@client.biloxi.example.com | 1 A 1 | A:74bfd
F5 INVITE sips:a8342043f@atlanta.example.com;gr | 1 B 712 | B:874bk | c=B sdp=bob/2890844527/2890844528/3456/sendonly
F6 200 | 1 B 712 INVITE | B:874bk | c=A sdp=alice/2890844526/2890844527/49170/recvonly
F7 ACK sips:a8342043f@atlanta.example.com;gr | 1 B 712 | B:q874b
F8 REFER sips:music@server.example.com | 2 B- 1 | B:nashds9 |
    Refer-To=<sips:a8342043f@atlanta.example.com;gr?Replaces=12345600%40atlanta.example.com%3B\
from-tag%3D23431%3Bto-tag%3D1234567&Require=replaces> Referred-By=<sips:bob@biloxi.example.com> c=B
F9 202 | 2 B 1 REFER | B:nashds9 | c=M
F10 NOTIFY sips:bob@client.biloxi.example.com | 2 M 1 | M:74bT6 | active=60 c=M fragment=100
F11 200 | 2 M 1 NOTIFY | M:74bT6
F12 INVITE sips:a8342043f@atlanta.example.com;gr | 3 M- 1 | M:74rf | Referred-By=<sips:bob@biloxi.example.com> c=M
    Require=replaces Replaces=12345600@atlanta.example.com;from-tag=23431;to-tag=1234567
    sdp=MusicServer/2890844576/2890844576/49170/sendonly
F13 200 | 3 M 1 INVITE | M:74rf | c=A sdp=alice/2890844526/2890844526/49170/recvonly
F14 ACK sips:a8342043f@atlanta.example.com;gr | 3 M 1 | M:7rfF
F15 BYE sips:bob@client.biloxi.example.com | 1 A 2 | A:nashds7
F16 200 | 1 A 2 BYE | A:nashds7
F17 NOTIFY sips:bob@client.biloxi.example.com | 2 M 2 | M:74bf9 | terminated=noresource c=M fragment=F13
F18 200 | 2 M 2 NOTIFY | M:74bf9
F19 INVITE sips:a8342043f@atlanta.example.com;gr | 4 B- 42121 | B:74bf9 |
    Replaces=a5-75-34-12-76@server.example.com;to-tag=098594;from-tag=0111 c=B
    sdp=bob/2890844631/2890844631/3458/sendrecv
F20 200 | 4 B 42121 INVITE | B:74bf9 | c=A sdp=alice/2890844576/2890844576/49170/sendrecv
F21 ACK sips:a8342043f@atlanta.example.com;gr | 4 B 42121 | B:j974bf9
F22 BYE sips:music@server.example.com | 3 A 15 | A:74rf
F23 200 | 3 A 15 BYE | A:74rf
""",
)
"""2.3: Bob puts Alice on hold, a server of music calls her in his place, and Bob takes her back."""

UNATTENDED = NETWORK.messages(
    {
        "1": ("12345601@atlanta.example.com", {"A": (ALICE, "1234567"), "B": (BOB, "314159")}),
        "2": ("7436222@atlanta.example.com", {"B": (BOB, "8675309"), "C": (CAROL, "928287")}),
    },
    {},
    """
F1 INVITE sips:alice@atlanta.example.com | 1 B- 1 | B:nashds7 | c=B sdp=bob/2890844527/2890844527/3456
F2 180 | 1 B 1 INVITE | B:nashds7 | c=A
F3 200 | 1 B 1 INVITE | B:nashds7 | c=A sdp=alice/2890844526/2890844526/49170
F4 ACK sips:alice@client.atlanta.example.com | 1 B 1 | B:nashds2
F5 REFER sips:bob@client.biloxi.example.com | 1 A 101 | A:nashds8 | Refer-To=<sips:carol@chicago.example.com>
    Referred-By=<sips:alice@atlanta.example.com> c=A
F6 202 | 1 A 101 REFER | A:nashds8 | c=B
F7 NOTIFY sips:alice@client.atlanta.example.com | 1 B 2 | B:nashds32 | active=60 c=B fragment=100
F8 200 | 1 B 2 NOTIFY | B:nashds32
F9 BYE sips:bob@client.biloxi.example.com | 1 A 102 | A:nashds43
F10 200 | 1 A 102 BYE | A:nashds43
F11 INVITE sips:carol@chicago.example.com | 2 B- 1 | B:nashds1 | c=B Referred-By=<sips:alice@atlanta.example.com>
    sdp=bob/2890844539/2890844539/3458
F12 180 | 2 B 1 INVITE | B:nashds1 | c=C
F13 200 | 2 B 1 INVITE | B:nashds1 | c=C sdp=carol/2890944542/2890844542/3456
F14 ACK sips:carol@client.chicago.example.com | 2 B 1 | B:nashds9
F15 NOTIFY sips:alice@client.atlanta.example.com | 1 B 3 | B:nashds67 | terminated=noresource c=B fragment=F13
F16 200 | 1 B 3 NOTIFY | B:nashds67
""",
)
"""2.4: Bob calls Alice, who has him call Carol and hangs up."""

ATTENDED = NETWORK.messages(
    {
        "1": ("12345600@atlanta.example.com", {"A": (ALICE, "1234567"), "B": (BOB, "23431")}),
        "2": ("sdjfdjfskdf@biloxi.example.com", {"B": (BOB, "8675309"), "C": (CAROL, "5f35a3")}),
        "3": ("9435674543@atlanta.example.com", {"A": (ALICE, "3461"), "C": (f"Carol {CAROL_GRUU}", "ff3a")}),
    },
    {"C": CAROL_GRUU},
    """
F1 INVITE sips:bob@biloxi.example.com | 1 A- 1 | A:74bf9 | c=A sdp=alice/2890844526/2890844526/49170
F2 180 | 1 A 1 INVITE | A:74bf9 | c=B
F3 200 | 1 A 1 INVITE | A:74bf9 | c=B sdp=bob/2890844527/2890844527/3456
F4 ACK sips:bob@client.biloxi.example.com | 1 A 1 | A:74bf
F5 INVITE sips:alice@client.atlanta.example.com | 1 B 1024 | B:nashds7 | c=B
    sdp=bob/2890844527/2890844528/3456/sendonly
F6 200 | 1 B 1024 INVITE | B:nashds7 | c=A sdp=alice/2890844526/2890844527/49170/recvonly
F7 ACK sips:alice@client.atlanta.example.com | 1 B 1024 | B:nashds3
F8 INVITE sips:carol@chicago.example.com | 2 B- 42 | B:nash | c=B sdp=bob/2890844834/2890844834/3458
F9 180 | 2 B 42 INVITE | B:nash | c=C
F10 200 | 2 B 42 INVITE | B:nash | c=C sdp=carol/2890844922/2890844922/3456
F11 ACK sips:39itp34klkd@chicago.example.com;gr | 2 B 42 | B:nashd5
F12 INVITE sips:39itp34klkd@chicago.example.com;gr | 2 B 43 | B:nashds0 | c=B
    sdp=bob/2890844834/2890844835/3458/sendonly
F13 200 | 2 B 43 INVITE | B:nashds0 | c=C sdp=carol/2890844922/2890844923/3456/recvonly
F14 ACK sips:39itp34klkd@chicago.example.com;gr | 2 B 43 | B:nash334
F15 REFER sips:alice@client.atlanta.example.com | 1 B 1025 | B:nashds2g |
    Refer-To=<sips:39itp34klkd@chicago.example.com;gr?Replaces=sdjfdjfskdf%40biloxi.example.co\
m%3Bto-tag%3D5f35a3%3Bfrom-tag%3D8675309&Require=replaces> Referred-By=<sips:bob@biloxi.example.com> c=B
F16 202 | 1 B 1025 REFER | B:nashds2g | c=A
F17 NOTIFY sips:bob@client.biloxi.example.com | 1 A 2 | A:74bfK | active=60 c=A fragment=100
F18 200 | 1 A 2 NOTIFY | A:74bfK
F19 INVITE sips:39itp34klkd@chicago.example.com;gr | 3 A- 1 | A:adfe4ko | Require=replaces
    Referred-By=<sips:bob@biloxi.example.com> Replaces=sdjfdjfskdf@biloxi.example.com;to-tag=5f35a3;from-tag=8675309
    c=A sdp=alice/2890844989/2890844989/3458
F20 200 | 3 A 1 INVITE | A:adfe4ko | c=C sdp=carol/2890844221/2890844221/49172
F21 ACK sips:39itp34klkd@chicago.example.com;gr | 3 A 1 | A:adfe4kU3
F22 BYE sips:bob@client.biloxi.example.com | 2 C 1 | C:74bfE
F23 200 | 2 C 1 BYE | C:74bfE
F24 NOTIFY sips:bob@client.biloxi.example.com | 1 A 3 | A:74bf2N | terminated=noresource c=A fragment=F20
F25 200 | 1 A 3 NOTIFY | A:74bf2N
F26 BYE sips:alice@client.atlanta.example.com | 1 B 1026 | B:nashds7P
F27 200 | 1 B 1026 BYE | B:nashds7P
""",
)
"""2.5: Alice calls Bob, who holds her, calls Carol, holds her as well, and has Alice call Carol in his place."""

INSTANT_MESSAGE = NETWORK.messages(
    {
        "1": ("12345600@atlanta.example.com", {"A": (ALICE, "1234567"), "B": (BOB, "3145678")}),
        "3": ("563456212@b2.chicago.example.com", {"C": (CAROL, "8675310"), "A": (f"Alice {ALICE_GRUU}", "131256")}),
    },
    {"A": ALICE_GRUU},
    """
F1 INVITE sips:bob@biloxi.example.com | 1 A- 1 | A:74bf9 | c=A sdp=alice/2890844526/2890844526/49170
F2 180 | 1 A 1 INVITE | A:74bf9 | c=B
F3 200 | 1 A 1 INVITE | A:74bf9 | c=B sdp=bob/2890844527/2890844527/3456
F4 ACK sips:bob@client.biloxi.example.com | 1 A 1 | A:74r
F7 INVITE sips:a8342043f@atlanta.example.com;gr | 3 C- 1 | C:74HH | Require=replaces
    Replaces=12345600@atlanta.example.com;to-tag=1234567;from-tag=3145678 c=C sdp=carol/2890843122/2890843122/5342
F8 200 | 3 C 1 INVITE | C:74HH | c=A sdp=alice/289084543/289084543/49172
F9 ACK sips:a8342043f@atlanta.example.com;gr | 3 C 1 | C:7435
F10 BYE sips:bob@client.biloxi.example.com | 1 A 2 | A:74bf
F11 200 | 1 A 2 BYE | A:74bf
""",
)
"""2.6: Bob writes to Carol, who takes over his call with Alice."""
