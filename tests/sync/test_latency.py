"""How long handlers take, as figures."""

from __future__ import annotations

import pytest

from p2psip.sync.latency import BOUNDS, Latency, together

TIMES = (0.0005, 0.001, 0.0011, 0.01, 0.1, 0.5, 10.0, 11.0)


def test_each_goes_into_the_bucket_whose_end_it_does_not_pass() -> None:
    latency = Latency()
    for seconds in TIMES:
        latency.add(seconds)
    assert BOUNDS == (0.001, 0.01, 0.1, 1.0, 10.0)
    assert latency.buckets == [2, 2, 1, 1, 1, 1]
    assert latency.longest == 11.0
    assert latency.total == pytest.approx(sum(TIMES))


def test_those_of_all_workers_together() -> None:
    one, other = Latency(), Latency()
    for latency, times in ((one, TIMES[::2]), (other, TIMES[1::2])):
        for seconds in times:
            latency.add(seconds)
    figures = together([one, other])
    assert figures.buckets == (2, 2, 1, 1, 1, 1)
    assert (figures.longest, figures.total) == (11.0, pytest.approx(sum(TIMES)))
    assert (one.longest, sum(one.buckets)) == (10.0, 4)  # which are as they were
