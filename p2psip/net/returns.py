"""Ways back to those whose connection is gone: to places that strangers have named."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from p2psip.errors import OperationFailureException, OperationFailureReason, RealTimeException
from p2psip.logs import Log
from p2psip.net.selection import is_address

if TYPE_CHECKING:
    from p2psip.net.connection import Connection
    from p2psip.net.network import Network
    from p2psip.net.pool import Failed, Ready, Target

_log = Log(__name__)

MOST = 64
"""Places that are being reached at a time: each may take a descriptor for as long as connecting may last."""
MOST_NAMES = 8
"""Those of them that are names: half of the threads that names are asked for on are left to the rest."""


class Returns:
    """For the loop's thread.

    Whoever sends a request says in its Via where the answer is to go when the connection is gone. That can be anywhere,
    and another place each time: names that nobody answers for, addresses where nobody is. So no more than a few of them
    are looked for at a time. However many answers go to the same place, it counts once.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._places: Counter[Target] = Counter()

    def acquire(self, target: Target, ready: Ready, failed: Failed) -> None:
        """As that of the network; ``failed`` as well where too many places are being reached already."""
        if target not in self._places and not self._has_room(target):
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
            ready(connection)

        def not_reached(error: RealTimeException) -> None:
            self._over(target)
            failed(error)

        self._network.acquire(target, reached, not_reached)

    def _has_room(self, target: Target) -> bool:
        if is_address(target.host):
            return len(self._places) < MOST
        return sum(not is_address(place.host) for place in self._places) < MOST_NAMES

    def _over(self, target: Target) -> None:
        self._places[target] -= 1
        if not self._places[target]:
            del self._places[target]
