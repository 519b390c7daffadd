"""What is under way on a flow, and doing something with all of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from p2psip.core.flow import Flow
    from p2psip.core.transaction import ClientTransaction, ServerTransaction

_T = TypeVar("_T")


class Traffic:
    """What is under way on one flow."""

    __slots__ = ("clients", "servers", "unanswered")

    def __init__(self) -> None:
        self.clients: dict[ClientTransaction, None] = {}
        self.servers: dict[ServerTransaction, None] = {}
        self.unanswered = 0  # requests of the peer without final answer


class TrafficByFlow(dict["Flow", Traffic]):
    """That of each flow; asking for a flow with ``[]`` makes it."""

    def __missing__(self, flow: Flow) -> Traffic:
        traffic = self[flow] = Traffic()
        return traffic


def for_each(things: Iterable[_T], function: Callable[[_T], object]) -> None:
    """Call the function with each of them, whether or not one call fails; then raise the first error."""
    errors = []
    for thing in things:
        try:
            function(thing)
        except Exception as error:
            errors.append(error)
    if errors:
        raise errors[0]
