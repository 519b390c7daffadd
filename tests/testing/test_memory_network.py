"""The network in memory and the fake clock, as our users' tests use them."""

from __future__ import annotations

import errno
import selectors
import socket
from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest

from p2psip.testing.clock import FakeClock
from p2psip.testing.network import MemoryNetwork

BOB = ("192.0.2.2", 5060)
WAIT = 10.0


@pytest.fixture
def network() -> Iterator[MemoryNetwork]:
    with MemoryNetwork() as made:
        yield made


def accept(listener: Any) -> tuple[Any, Any]:
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        assert selector.select(WAIT)
    return listener.accept()  # type: ignore[no-any-return]


def is_connected(sock: socket.socket, seconds: float = WAIT) -> bool:
    """Writable, which is how a connection that is being made shows its outcome."""
    with selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_WRITE)
        return bool(selector.select(seconds)) and not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def connect(network: Any, address: tuple[str, int] = BOB) -> socket.socket:
    return network.connect(socket.AF_INET, address)  # type: ignore[no-any-return]


def read(sock: socket.socket, size: int) -> bytes:
    sock.setblocking(True)
    sock.settimeout(WAIT)
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            break
        data += piece
    return data


def test_bytes_go_both_ways_between_virtual_addresses(network: MemoryNetwork) -> None:
    listener = network.listen(socket.AF_INET, BOB, 128)
    assert listener.getsockname() == BOB
    with connect(network.machine("192.0.2.1")) as alice:
        bob, address = accept(listener)
        with bob:
            assert is_connected(alice)
            assert address == alice.getsockname() == bob.getpeername()
            assert address[0] == "192.0.2.1"
            assert alice.getpeername() == bob.getsockname() == BOB
            alice.send(b"ping")
            assert read(bob, 4) == b"ping"
            bob.send(b"pong")
            assert read(alice, 4) == b"pong"
            (link,) = network.links
            assert (link.source, link.destination) == (address, BOB)
            assert (bytes(link.to_destination), bytes(link.to_source)) == (b"ping", b"pong")
    listener.close()


def test_much_goes_through(network: MemoryNetwork) -> None:
    listener = network.listen(socket.AF_INET, BOB, 128)
    with connect(network) as alice:
        bob, _ = accept(listener)
        with bob:
            data = bytes(range(256)) * 20_000
            sent = received = 0
            bob.setblocking(False)
            while received < len(data):
                with selectors.DefaultSelector() as selector:
                    selector.register(bob, selectors.EVENT_READ)
                    if sent < len(data):
                        selector.register(alice, selectors.EVENT_WRITE)
                    ready = [key.fileobj for key, _ in selector.select(WAIT)]
                assert ready
                if alice in ready:
                    sent += alice.send(data[sent : sent + 100_000])
                if bob in ready:
                    piece = bob.recv(1 << 20)
                    assert piece == data[received : received + len(piece)]
                    received += len(piece)
            assert bytes(network.links[0].to_destination) == data
    listener.close()


def test_a_half_closed_connection_still_carries_the_answer(network: MemoryNetwork) -> None:
    listener = network.listen(socket.AF_INET, BOB, 128)
    with connect(network) as alice:
        bob, _ = accept(listener)
        with bob:
            alice.send(b"ask")
            alice.shutdown(socket.SHUT_WR)
            assert read(bob, 10) == b"ask"
            bob.send(b"answer")
            assert read(alice, 6) == b"answer"
    listener.close()


def test_nobody_listens_there(network: MemoryNetwork) -> None:
    with pytest.raises(ConnectionRefusedError):
        connect(network)
    assert network.links == ()


def test_a_closed_listener_refuses(network: MemoryNetwork) -> None:
    listener = network.listen(socket.AF_INET, BOB, 128)
    listener.close()
    with pytest.raises(ConnectionRefusedError):
        connect(network)
    network.listen(socket.AF_INET, BOB, 128).close()


def test_ports_are_taken_once_and_chosen_when_they_are_0(network: MemoryNetwork) -> None:
    first = network.listen(socket.AF_INET, ("192.0.2.2", 0), 128)
    second = network.listen(socket.AF_INET, ("192.0.2.2", 0), 128)
    assert first.getsockname() != second.getsockname()
    with pytest.raises(OSError) as caught:
        network.listen(socket.AF_INET, first.getsockname(), 128)
    assert caught.value.errno == errno.EADDRINUSE
    first.close()
    second.close()


@pytest.mark.parametrize(
    ("family", "any_address", "there", "elsewhere"),
    [
        (socket.AF_INET, "0.0.0.0", "192.0.2.2", "192.0.2.3"),
        (socket.AF_INET6, "::", "2001:db8::2", "2001:db8::3"),
    ],
)
def test_any_address_is_that_of_the_machine(
    network: MemoryNetwork, family: int, any_address: str, there: str, elsewhere: str
) -> None:
    listener = network.machine(there).listen(family, (any_address, 5060), 128)
    assert listener.getsockname() == (there, 5060)
    network.connect(family, (there, 5060)).close()
    with pytest.raises(ConnectionRefusedError):
        network.connect(family, (elsewhere, 5060))
    everywhere = network.listen(family, (any_address, 5061), 128)
    network.connect(family, (elsewhere, 5061)).close()
    for made in (listener, everywhere):
        made.close()


def test_a_machine_with_an_ipv4_address_has_no_ipv6(network: MemoryNetwork) -> None:
    with pytest.raises(OSError) as caught:
        network.machine("192.0.2.2").listen(socket.AF_INET6, ("::", 5060), 128)
    assert caught.value.errno == errno.EADDRNOTAVAIL


def test_refused_on_demand(network: MemoryNetwork) -> None:
    listener = network.listen(socket.AF_INET, BOB, 128)
    network.refuse("192.0.2.2")
    with pytest.raises(ConnectionRefusedError):
        connect(network)
    network.allow("192.0.2.2")
    network.refuse("192.0.2.2", 5061)
    connect(network).close()
    listener.close()


def test_ignored_for_ever(network: MemoryNetwork) -> None:
    network.ignore("192.0.2.2")
    with connect(network) as alice:
        assert not is_connected(alice, 0)
        assert len(network.wait_for_links(1)) == 1


def test_delayed_until_it_is_released(network: MemoryNetwork) -> None:
    listener = network.listen(socket.AF_INET, BOB, 128)
    network.delay(*BOB)
    with connect(network) as alice:
        assert not is_connected(alice, 0)
        with pytest.raises(BlockingIOError):
            listener.accept()
        network.links[0].release()
        bob, _ = accept(listener)
        with bob:
            assert is_connected(alice)
            alice.send(b"now")
            assert read(bob, 3) == b"now"  # and nothing of what kept it
    listener.close()


def test_held_bytes_pass_when_they_are_released(network: MemoryNetwork) -> None:
    listener = network.listen(socket.AF_INET, BOB, 128)
    with connect(network) as alice:
        bob, _ = accept(listener)
        with bob:
            (link,) = network.links
            link.hold()
            alice.send(b"late")
            with pytest.raises(BlockingIOError):
                bob.recv(1)
            link.release()
            assert read(bob, 4) == b"late"
    listener.close()


def test_both_sides_see_a_cut(network: MemoryNetwork) -> None:
    listener = network.listen(socket.AF_INET, BOB, 128)
    with connect(network) as alice:
        bob, _ = accept(listener)
        with bob:
            network.links[0].cut()
            network.links[0].cut()
            assert read(alice, 1) == read(bob, 1) == b""
    listener.close()


def test_names_are_those_of_the_test(network: MemoryNetwork) -> None:
    network.hosts["b.example"] = ["192.0.2.2"]
    assert network.hosts["b.example"] == network.machine("192.0.2.1").hosts["b.example"] == ["192.0.2.2"]
    assert network.hosts["nobody.example"] == []


def test_a_closed_network_refuses() -> None:
    network = MemoryNetwork()
    network.close()
    network.close()
    with pytest.raises(ConnectionRefusedError):
        connect(network)
    with pytest.raises(OSError) as caught:
        network.listen(socket.AF_INET, BOB, 128)
    assert caught.value.errno == errno.ENETDOWN


class Overtaken(deque[Any]):
    """Of which another thread takes what there is just before."""

    def popleft(self) -> Any:
        super().popleft().close()
        return super().popleft()


def test_the_network_may_be_closed_while_another_thread_accepts(network: MemoryNetwork) -> None:
    listener: Any = network.listen(socket.AF_INET, BOB, 128)
    with connect(network):
        network.links[0].release()  # the network's thread has done what there was
        listener._waiting = Overtaken(listener._waiting)
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_a_listener_may_be_closed_while_another_thread_accepts(network: MemoryNetwork) -> None:
    listener: Any = network.listen(socket.AF_INET, BOB, 128)
    with connect(network):
        network.links[0].release()
        listener._waiting = Overtaken(listener._waiting)
        listener.close()


def test_waiting_for_links_that_do_not_come(network: MemoryNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2psip.testing.network.PATIENCE", 0.01)
    with pytest.raises(TimeoutError, match="0 links, not 1"):
        network.wait_for_links(1)


def test_the_clock_is_the_one_that_was_given() -> None:
    clock = FakeClock(5, epoch=100)
    with MemoryNetwork(clock) as network:
        assert network.clock is network.machine("192.0.2.1").clock is clock
    assert (clock.now(), clock.time()) == (5, 100)
    clock.advance(1.5)
    assert (clock.now(), clock.time()) == (6.5, 101.5)


def test_a_connection_takes_its_time_also_where_pairs_of_sockets_are_tcp(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows."""

    def tcp_pair() -> tuple[socket.socket, socket.socket]:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            one = socket.create_connection(listening.getsockname())
            return one, listening.accept()[0]

    monkeypatch.setattr(socket, "socketpair", tcp_pair)
    with MemoryNetwork() as network:
        network.delay(BOB[0])
        listener = network.listen(socket.AF_INET, BOB, 128)
        with connect(network) as alice:
            assert not is_connected(alice, 0.2)
            network.links[0].release()
            assert is_connected(alice)
            accept(listener)[0].close()
        listener.close()
