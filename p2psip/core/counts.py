"""What one engine counts. Each of these only grows; the engine's thread writes them, any thread may read them."""

from __future__ import annotations

from collections import Counter

from p2psip.config import ManagerSettings


class Counts:
    """Counters of transactions and of what goes wrong in them.

    Attributes:
        clients, servers: Transactions that were begun.
        retransmitted: Responses that were sent again because nobody had acknowledged them.
        absorbed: Copies of requests that had come before.
        strays: Responses that match no request of ours.
        refused: What a limit kept back, by the field of ``ManagerSettings``.
        timeouts: By the field of ``ManagerSettings`` or, where there is none: ``"transaction"`` (64*T1),
            ``"caller"`` (the time-out that was given with a request), ``"acknowledgement"`` (no ACK or PRACK).
    """

    __slots__ = ("absorbed", "clients", "refused", "retransmitted", "servers", "strays", "timeouts")

    def __init__(self) -> None:
        self.clients = 0
        self.servers = 0
        self.retransmitted = 0
        self.absorbed = 0
        self.strays = 0
        self.refused: Counter[str] = Counter()
        self.timeouts: Counter[str] = Counter()

    def are_too_many(self, unanswered: int, transactions: int, settings: ManagerSettings) -> bool:
        """A request is not taken: so many on its connection wait for answers, and so many transactions there are."""
        if unanswered >= settings.maximum_unanswered_per_connection:
            self.refused["maximum_unanswered_per_connection"] += 1
        elif transactions >= settings.maximum_transactions:
            self.refused["maximum_transactions"] += 1
        else:
            return False
        return True
