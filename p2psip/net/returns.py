"""Ways back to those whose connection is gone: to places that strangers have named."""

from __future__ import annotations

import weakref
from collections import Counter
from typing import TYPE_CHECKING

from p2psip.errors import (
    ConnectionFailureException,
    OperationFailureException,
    OperationFailureReason,
    RealTimeException,
    limited,
)
from p2psip.logs import Log
from p2psip.net.selection import is_address

if TYPE_CHECKING:
    from p2psip.net.connection import Connection
    from p2psip.net.network import Network
    from p2psip.net.pool import Failed, Ready, Target

_log = Log(__name__)

MOST = 64
"""Places that are being reached at a time, and connections that were made for it: each takes a descriptor, and strangers
could have as many as there may be."""
MOST_NAMES = 8
"""Those places that are names: half of the threads that names are asked for on are left to the rest."""
UNUSED = 32.0
"""Seconds after which such a connection is closed when nothing has come over it."""


class Returns:
    """For the loop's thread.

    Whoever sends a request says in its Via where the answer is to go when the connection is gone. That can be anywhere,
    and another place each time: names that nobody answers for, addresses where nobody is. So no more than a few of them
    are looked for at a time. However many answers go to the same place, it counts once.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._places: Counter[Target] = Counter()
        self._made: weakref.WeakSet[Connection] = weakref.WeakSet()

    def acquire(self, target: Target, ready: Ready, failed: Failed) -> None:
        """As that of the network; ``failed`` as well where too many places are being reached already."""
        is_new = target not in self._places and self._network.free(target) is None
        if is_new and not self._has_room(target):
            _log.warning("The answer to a request whose connection is gone is dropped: many others are on their way.")
            error = OperationFailureException(
                f"{target} was not connected to: answers are on their way to many other places.",
                OperationFailureReason.THROTTLED,
            )
            self._network.loop.at_turn_end(failed, error)
            return
        self._places[target] += 1

        def reached(connection: Connection) -> None:
            self._over(target)
            if connection.pool is not None and not connection.messages_sent:
                self._made.add(connection)
                self._network.loop.call_later(UNUSED, self._close_unused, connection)
            ready(connection)

        def not_reached(error: RealTimeException) -> None:
            self._over(target)
            failed(error)

        self._network.acquire(target, reached, not_reached)

    def _has_room(self, target: Target) -> bool:
        made = sum(connection.is_connected for connection in self._made)
        if len(self._places) + made >= MOST:
            return False
        return is_address(target.host) or sum(not is_address(place.host) for place in self._places) < MOST_NAMES

    def _over(self, target: Target) -> None:
        self._places[target] -= 1
        if not self._places[target]:
            del self._places[target]

    def _close_unused(self, connection: Connection) -> None:
        if not connection.messages_received and not connection.unanswered:
            sentence = f"Nothing was said on the connection with {connection.peer}, which was made for an answer."
            connection.close(limited("idle_timeout", ConnectionFailureException(sentence)))
