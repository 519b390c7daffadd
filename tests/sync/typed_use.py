"""How a user's program meets events and operations; read by mypy, never run (test_types.py).

Under --strict a ``type: ignore`` that hides nothing is an error, so each of them is a misuse that must be found.
"""

from __future__ import annotations

import asyncio
import concurrent.futures

from typing_extensions import assert_type

from p2psip.sync import Event, Operation


class Args:
    text: str


class OtherArgs:
    pass


class Endpoint:
    received: Event[Endpoint, Args] = Event()

    def tell(self, args: Args) -> None:
        self.received.raise_event(self, args, self.report, lambda: None)

    def report(self, sender: object, error: BaseException, handler: object) -> None: ...


class PeerEndpoint(Endpoint):
    pass


class Other:
    pass


class Listener:
    def heard(self, sender: Endpoint, args: Args) -> None: ...


def of_peer(sender: PeerEndpoint, args: Args) -> None: ...
def of_base(sender: Endpoint, args: Args) -> None: ...
def of_anything(sender: object, args: object) -> None: ...
def other_args(sender: Endpoint, args: OtherArgs) -> None: ...
def too_few(sender: Endpoint) -> None: ...


def events(peer: PeerEndpoint, base: Endpoint, texts: list[str], other: Other, args: Args) -> None:
    peer.received += of_peer
    peer.received += of_base
    peer.received += of_anything
    peer.received += Listener().heard
    peer.received += lambda sender, args: texts.append(args.text)
    peer.received -= of_peer
    base.received += of_base

    base.received.raise_event(other, args)  # type: ignore[arg-type]
    peer.received += other_args  # type: ignore[arg-type]
    peer.received += too_few  # type: ignore[arg-type]
    peer.received = of_peer  # type: ignore[assignment]

    with peer.received.expect(timeout=5, predicate=lambda args: args.text == "x") as got:
        pass
    assert_type(got.args, Args)
    assert_type(got.sender, PeerEndpoint)


async def operations(operation: Operation[int]) -> None:
    assert_type(operation.result(5), int)
    assert_type(await asyncio.wrap_future(operation), int)
    for done in concurrent.futures.as_completed([operation]):
        assert_type(done.result(), int)
    operation.add_done_callback(lambda done: print(done.result() + 1))
    operation.complete("text")  # type: ignore[arg-type]
