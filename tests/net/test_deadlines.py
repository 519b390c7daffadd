"""The heap of deadlines."""

from __future__ import annotations

import weakref

from p2psip.net.deadlines import NEVER, Deadlines


class Item:
    def __init__(self, deadlines: Deadlines, again: float | None = None) -> None:
        self.deadline = NEVER
        self.expired: list[float] = []
        self._deadlines = deadlines
        self._again = again

    def expire(self, now: float) -> None:
        self.expired.append(now)
        if self._again is not None:
            self._deadlines.arm(self, now + self._again)


def test_only_the_earliest_deadline_of_an_item_counts() -> None:
    deadlines = Deadlines()
    item = Item(deadlines)
    deadlines.arm(item, 10)
    deadlines.arm(item, 20)
    deadlines.arm(item, 5)
    assert deadlines.next_deadline() == 5
    deadlines.advance(4.9)
    assert item.expired == []
    deadlines.advance(30)
    assert item.expired == [30]
    assert deadlines.next_deadline() is None


def test_items_expire_in_order_and_may_arm_again() -> None:
    deadlines = Deadlines()
    order: list[str] = []

    class Named(Item):
        def __init__(self, name: str) -> None:
            super().__init__(deadlines)
            self.name = name

        def expire(self, now: float) -> None:
            order.append(self.name)

    for name, deadline in (("c", 3), ("a", 1), ("b", 2)):
        deadlines.arm(Named(name), deadline)
    again = Item(deadlines, again=1)
    deadlines.arm(again, 1.5)
    deadlines.advance(4)
    assert order == ["a", "b", "c"]
    assert again.expired == [4]
    assert deadlines.next_deadline() == 5


def test_what_is_disarmed_does_not_expire() -> None:
    deadlines = Deadlines()
    item = Item(deadlines)
    deadlines.arm(item, 1)
    deadlines.disarm(item)
    deadlines.disarm(item)
    deadlines.advance(2)
    assert item.expired == []
    deadlines.arm(item, 3)
    deadlines.advance(3)
    assert item.expired == [3]


def test_replaced_deadlines_leave_nothing_behind() -> None:
    deadlines = Deadlines()
    items = [Item(deadlines) for _ in range(10)]
    for turn in range(1000):
        for item in items:
            deadlines.disarm(item)
            deadlines.arm(item, 1000 + turn)
    assert len(deadlines._heap) < 200
    deadlines.advance(3000)
    assert [len(item.expired) for item in items] == [1] * 10


def test_what_is_disarmed_is_not_kept_alive() -> None:
    deadlines = Deadlines()
    item = Item(deadlines)
    deadlines.arm(item, 900)
    deadlines.disarm(item)
    gone = weakref.ref(item)
    del item
    assert gone() is None
