"""Names to places and addresses: who serves a name, and where that is. It may take as long as it likes."""

from __future__ import annotations

import functools
import random
import socket
from collections.abc import Callable, Generator
from typing import Any

from p2psip.config import ManagerSettings
from p2psip.errors import ConnectionFailureException, RealTimeException, limited
from p2psip.logs import Log
from p2psip.net import records
from p2psip.net.addresses import Address, Ask, Lookup, NotTold, addresses_in_dns, addresses_of_system, literal
from p2psip.net.given import GivenNames, is_local
from p2psip.net.loop import Loop
from p2psip.net.questions import Questions
from p2psip.net.selection import Answer, Plan, Query, Wanted, plain_name, select

_log = Log(__name__)

Done = Callable[[list[Address]], object]
Failed = Callable[[RealTimeException], object]
Planned = Callable[[Plan], object]

CACHE_TIME = 30.0
"""Seconds that addresses are used again; the system tells nothing of the name's own time."""
MAXIMUM_CACHED = 1024
SILENCE_TIME = 30.0
"""Seconds that the DNS is left alone after a silence, where it has never answered before."""
SHARE_OF_SERVICES = 0.4
"""How much of ``resolve_timeout`` the questions for services may take; the rest is for addresses."""


class Resolver:
    """Finds who serves a name (RFC 3263), and the addresses of hosts. For the loop's thread, which it never holds up.

    Literal addresses are answered without asking anybody. Everything else is asked for on daemon threads, the same
    thing once at a time: services in the DNS, addresses of the system, which has a file of hosts and an order of its
    own (RFC 6724). Answers are remembered: services as long as they say, addresses half a minute.

    Args:
        given: What is known on this side; nobody else is asked for it.
        lookup: ``socket.getaddrinfo``, or what stands in for it in a test.
        ask: A question to the DNS, likewise; see :func:`p2psip.net.records.ask`.
    """

    def __init__(
        self,
        loop: Loop,
        settings: ManagerSettings,
        given: GivenNames,
        lookup: Lookup = socket.getaddrinfo,
        ask: Ask = records.ask,
    ) -> None:
        self._loop = loop
        self._settings = settings
        self._given = given
        self._lookup = lookup
        self._ask = ask
        self._questions = Questions(loop, self._remember)
        self._cache: dict[str | Query, tuple[float, Any]] = {}
        self._was_heard = False  # the DNS has answered, ever
        self._silent_until = 0.0

    # ------------------------------------------------------------------ services

    def plan(self, wanted: Wanted, done: Planned) -> None:
        """Find the places to try for it.

        ``done`` is called once, never from within this call, and at the latest when a share of
        ``settings.resolve_timeout`` is over: what was not answered by then counts as not there.
        """
        search = select(wanted, lambda most: random.randint(0, most))
        deadline = self._loop.now + self._settings.resolve_timeout * SHARE_OF_SERVICES
        self._loop.at_turn_end(self._search, search, done, deadline, None)

    def _search(
        self, search: Generator[Query, Answer, Plan], done: Planned, deadline: float, answer: Answer | None
    ) -> None:
        """Until the plan is ready, or there is something to wait for."""
        while True:
            try:
                query = search.send(answer)  # type: ignore[arg-type]
            except StopIteration as end:
                self._call(done, end.value)
                return
            answer = self._known(query)
            if answer is None:
                self._ask_dns(query, functools.partial(self._search, search, done, deadline), deadline)
                return

    def _known(self, query: Query) -> Answer | None:
        """What can be said without asking anybody."""
        given = self._given.records(query)
        if given is not None:
            return Answer(given)
        if self._given.nameservers == []:
            return Answer()
        known: Answer | None = self._cached(query)
        if known is None and self._loop.now < self._silent_until:
            return Answer(problem="no nameserver has answered lately", is_silence=True)
        return known

    def _ask_dns(self, query: Query, heard: Callable[[Answer], object], deadline: float) -> None:
        """The time is the search's; the question itself goes on, for others and for the next time."""
        most = self._settings.resolve_timeout * SHARE_OF_SERVICES

        def answered(outcome: Any) -> None:
            if isinstance(outcome, TimeoutError):
                heard(Answer(problem=f"no answer within {most:.3g} s"))
            elif isinstance(outcome, Exception):
                heard(Answer(problem=str(outcome)))
            else:
                heard(outcome[0])

        work = functools.partial(self._ask, query, self._given.nameservers, most)
        self._questions.ask(query, work, answered, max(deadline - self._loop.now, 0.0))

    # ------------------------------------------------------------------ addresses

    def resolve(self, host: str, done: Done, failed: Failed, *, share: float = 1.0) -> None:
        """Find the addresses of a host, best first (RFC 6724 order, as the system gives it).

        Exactly one of the two is called, never from within this call: ``done`` with at least one address, or
        ``failed`` with a ConnectionFailureException, at the latest after that share of ``settings.resolve_timeout``.
        """
        name = plain_name(host)
        later = self._loop.at_turn_end
        try:
            later(done, literal(name))
            return
        except ValueError:
            pass
        except OSError as error:  # an unknown zone
            later(failed, _failure(host, f"the system said {error.strerror}", error))
            return
        given = self._given.addresses(name)
        if given is not None:
            if given:
                later(done, [address for text in given for address in literal(text)])
            else:
                later(failed, _failure(host, "there is no such host"))
            return
        cached = self._cached(name)
        if cached is not None:
            later(done, list(cached))
            return
        seconds = self._settings.resolve_timeout * share

        def answered(outcome: Any) -> None:
            if isinstance(outcome, list) and outcome:
                done(list(outcome))
            elif isinstance(outcome, list):
                failed(_failure(name, "it has no address"))
            elif isinstance(outcome, TimeoutError):
                failed(limited("resolve_timeout", _failure(name, f"no answer within {seconds:g} s")))
            else:
                words = getattr(outcome, "strerror", None) or str(outcome)
                failed(_failure(name, words if isinstance(outcome, NotTold) else f"the system said {words}", outcome))

        servers = self._given.nameservers
        if servers and not is_local(name):
            work = functools.partial(addresses_in_dns, self._ask, name, servers, seconds)
        else:
            work = functools.partial(addresses_of_system, self._lookup, name)
        self._questions.ask(name, work, answered, seconds)

    # ------------------------------------------------------------------ what is remembered

    def _cached(self, key: str | Query) -> Any:
        known = self._cache.get(key)
        return known[1] if known is not None and known[0] > self._loop.now else None

    def _remember(self, key: str | Query, outcome: Any) -> None:
        if isinstance(key, Query) and not isinstance(outcome, Exception):
            value, seconds = outcome
            # One name that nobody answers for says nothing of others; but a machine without DNS is not to be slow.
            if not value.is_silence:
                self._was_heard = True
            elif not self._was_heard:
                self._silent_until = self._loop.now + SILENCE_TIME
        elif isinstance(outcome, list) and outcome:
            value, seconds = outcome, CACHE_TIME
        else:
            return
        if len(self._cache) >= MAXIMUM_CACHED:
            self._cache.clear()
        self._cache[key] = (self._loop.now + seconds, value)

    def _call(self, function: Callable[..., object], argument: object) -> None:
        try:
            function(argument)
        except Exception:
            _log.exception("%r failed.", function)


def _failure(host: str, why: str, cause: BaseException | None = None) -> ConnectionFailureException:
    error = ConnectionFailureException(
        f"The host name {host!r} could not be resolved: {why}; check its spelling and the DNS."
    )
    error.__cause__ = cause
    return error
