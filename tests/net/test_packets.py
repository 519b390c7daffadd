"""Packets around the octets of a connection, and the blocks of a pcapng file."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packet_reader import CaptureContents, segment

from p2psip.net import pcapng
from p2psip.net.packets import ACK, FIN, PSH, SYN, Conversation, Packet, internet_checksum

FOUR = (("192.0.2.1", 40001), ("192.0.2.2", 5061))
SIX = (("2001:db8::1", 40001), ("2001:db8::2", 5061))


@pytest.mark.parametrize(("client", "server"), [FOUR, SIX])
def test_a_connection_begins_and_ends_as_tcp_does(client: tuple[str, int], server: tuple[str, int]) -> None:
    talk = Conversation(client, server)
    packets = [*talk.begin(), *talk.carry(True, b"question"), *talk.carry(False, b"answer"), *talk.end(True)]
    seen = [segment(packet.data) for packet in packets]
    assert [each.flags for each in seen] == [SYN, SYN | ACK, ACK, *[PSH | ACK, ACK] * 2, FIN | ACK, FIN | ACK, ACK]
    assert [each.source for each in seen[:5]] == [client, server, client, client, server]
    assert [packet.from_client for packet in packets] == [each.source == client for each in seen]
    assert [(each.sequence, each.acknowledged) for each in seen] == [
        *[(0, 0), (0, 1), (1, 1)],
        *[(1, 1), (1, 9)],
        *[(1, 9), (9, 7)],
        *[(9, 7), (7, 10), (10, 8)],
    ]


@pytest.mark.parametrize(("client", "server"), [FOUR, SIX])
def test_what_is_long_is_cut_into_segments_and_acknowledged_within_the_window(
    client: tuple[str, int], server: tuple[str, int]
) -> None:
    data = bytes(range(256)) * 1000
    packets = Conversation(client, server).carry(True, data)
    assert max(len(packet.data) for packet in packets) == 1500
    seen = [segment(packet.data) for packet in packets]
    assert b"".join(each.data for each in seen) == data
    in_flight = 0
    for each in seen:
        in_flight = in_flight + len(each.data) if each.data else 0
        assert in_flight < 65535
    assert seen[-1].acknowledged == 1 + len(data) and seen[-1].source == server


def test_sequence_numbers_go_round() -> None:
    talk = Conversation(*FOUR)
    (packet, _) = talk.carry(True, b"x" * 10, 2**32 - 6)
    assert segment(packet.data).sequence == 2**32 - 5
    (packet, _) = talk.carry(True, b"y")
    assert segment(packet.data).sequence == 5


def test_what_is_missing_leaves_a_gap() -> None:
    talk = Conversation(*FOUR)
    first, *_ = talk.carry(True, b"abc", 0)
    later, *_ = talk.carry(True, b"xyz", 100)
    assert [segment(packet.data).sequence for packet in (first, later)] == [1, 101]


@pytest.mark.parametrize(
    ("client", "server", "shown"),
    [
        (("192.0.2.1", 1), ("2001:db8::2", 2), ("::ffff:192.0.2.1", "2001:db8::2")),
        (("/tmp/socket", 1), ("192.0.2.2", 2), ("0.0.0.0", "192.0.2.2")),
    ],
)
def test_addresses_that_do_not_go_together(
    client: tuple[str, int], server: tuple[str, int], shown: tuple[str, str]
) -> None:
    first = segment(Conversation(client, server).begin()[0].data)
    assert (first.source[0].replace("::ffff:c000:201", "::ffff:192.0.2.1"), first.destination[0]) == shown


@given(st.binary(max_size=200))
def test_checksums_are_those_of_rfc_1071(data: bytes) -> None:
    """What is summed up together with its checksum comes to all ones; the reader of these tests sums word by word."""
    even = data + bytes(len(data) % 2)
    total = sum(int.from_bytes(even[at : at + 2], "big") for at in range(0, len(even), 2))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    checksum = internet_checksum(data)
    assert (total + checksum) % 0xFFFF == 0


@given(st.lists(st.tuples(st.booleans(), st.binary(min_size=1, max_size=4000)), max_size=8))
def test_the_streams_can_be_put_together_again(said: list[tuple[bool, bytes]]) -> None:
    talk = Conversation(*FOUR)
    packets: list[Packet] = talk.begin()
    for from_client, data in said:
        packets += talk.carry(from_client, data)
    for side, address in ((True, FOUR[0]), (False, FOUR[1])):
        got = b"".join(s.data for packet in packets if (s := segment(packet.data)).source == address)
        assert got == b"".join(data for from_client, data in said if from_client is side)


def test_a_file_is_made_of_blocks(tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    first, *_ = Conversation(*FOUR).begin()
    path.write_bytes(
        pcapng.section_header("p2psip 1.0")
        + pcapng.interface("manager")
        + pcapng.secrets(b"CLIENT_RANDOM 00 11\n")
        + pcapng.packet(1_700_000_000.123456, first.data, is_sent=True, comment="odd")
        + pcapng.packet(1_700_000_000.5, first.data, is_sent=False)
        + pcapng.interface_statistics(1_700_000_001.0, 2, 3, "3 are missing")
    )
    contents = CaptureContents(path)
    assert contents.kinds == [0x0A0D0D0A, 1, 10, 6, 6, 5]
    assert (contents.application, contents.interface) == ("p2psip 1.0", "manager")
    assert contents.secrets == [b"CLIENT_RANDOM 00 11\n"]
    assert [(f.when, f.is_sent, f.comment) for f in contents.frames] == [
        (pytest.approx(1_700_000_000.123456, abs=1e-6), True, "odd"),
        (1_700_000_000.5, False, ""),
    ]
    assert (contents.dropped, contents.ending) == (3, "3 are missing")
