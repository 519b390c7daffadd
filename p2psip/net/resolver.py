"""Names to addresses, on threads of its own: asking the system for a name may take as long as it likes."""

from __future__ import annotations

import ipaddress
import logging
import socket
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from p2psip.config import ManagerSettings
from p2psip.errors import ConnectionFailureException, RealTimeException, fresh
from p2psip.net.loop import Loop, LoopEnded
from p2psip.net.sockets import SocketAddress
from p2psip.timers import Timer

_log = logging.getLogger(__name__)

Address = tuple[int, SocketAddress]
"""Family, and a socket address whose port is 0."""
Done = Callable[[list[Address]], object]
Failed = Callable[[RealTimeException], object]

MAXIMUM_THREADS = 16
CACHE_TIME = 30.0
"""Seconds that an answer is used again; the system tells nothing of the name's own time."""
MAXIMUM_CACHED = 1024


class _Question:
    """One name that is being looked up, for all who asked meanwhile."""

    __slots__ = ("askers", "host", "timer")

    def __init__(self, host: str) -> None:
        self.host = host
        self.askers: list[tuple[Done, Failed]] = []
        self.timer: Timer | None = None


class Resolver:
    """Looks host names up. For the loop's thread, which it never holds up.

    Literal addresses are answered without asking anybody. Names are asked for on daemon threads, the same name once
    at a time, and remembered for half a minute.

    Args:
        hosts: Names that have these addresses, whatever the system says; an empty list means no such host.
        lookup: ``socket.getaddrinfo``, or what stands in for it in a test.
    """

    def __init__(
        self,
        loop: Loop,
        settings: ManagerSettings,
        hosts: Mapping[str, Sequence[str]],
        lookup: Callable[..., Sequence[tuple[int, int, int, str, SocketAddress]]] = socket.getaddrinfo,
    ) -> None:
        self._loop = loop
        self._settings = settings
        self._hosts = hosts
        self._lookup = lookup
        self._questions: dict[str, _Question] = {}
        self._queue: deque[_Question] = deque()
        self._threads = 0
        self._cache: dict[str, tuple[float, list[Address]]] = {}

    def resolve(self, host: str, done: Done, failed: Failed) -> None:
        """Find the addresses of a host, best first (RFC 6724 order, as the system gives it).

        Exactly one of the two is called, never from within this call: ``done`` with at least one address, or
        ``failed`` with a ConnectionFailureException, at the latest after ``settings.resolve_timeout``.
        """
        name = host.strip("[]").rstrip(".").lower()
        later = self._loop.at_turn_end
        try:
            later(done, _literal(name))
            return
        except ValueError:
            pass
        except OSError as error:  # an unknown zone
            later(failed, _failure(host, f"the system said {error.strerror}", error))
            return
        try:
            addresses = [address for text in self._hosts[name] for address in _literal(text)]
        except KeyError:
            pass
        else:
            if addresses:
                later(done, addresses)
            else:
                later(failed, _failure(host, "there is no such host"))
            return
        cached = self._cache.get(name)
        if cached is not None and cached[0] > self._loop.now:
            later(done, list(cached[1]))
            return
        question = self._questions.get(name)
        if question is None:
            question = self._questions[name] = _Question(name)
            question.timer = self._loop.call_later(self._settings.resolve_timeout, self._give_up, question)
            self._queue.append(question)
            later(self._start_threads)
        question.askers.append((done, failed))

    def _start_threads(self) -> None:
        while self._queue and self._threads < MAXIMUM_THREADS:
            question = self._queue.popleft()
            thread = threading.Thread(
                target=self._ask, args=(question,), name=f"{self._loop.name} resolver", daemon=True
            )
            try:
                thread.start()
            except RuntimeError as error:  # the system has no thread left
                self._fail(question, _failure(question.host, str(error), error))
            else:
                self._threads += 1

    def _ask(self, question: _Question) -> None:
        """On a thread of its own."""
        answer: list[Address] | Exception
        try:
            found = self._lookup(question.host, None, type=socket.SOCK_STREAM)
            # An answer may hold families that a socket address of ours does not fit.
            families = (socket.AF_INET, socket.AF_INET6)
            answer = list(dict.fromkeys((entry[0], entry[4]) for entry in found if entry[0] in families))
        except Exception as error:  # OSError, and UnicodeError for what cannot be a name
            answer = error
        try:
            self._loop.post(self._answered, question, answer)
        except LoopEnded:
            pass

    def _answered(self, question: _Question, answer: list[Address] | Exception) -> None:
        self._threads -= 1
        self._start_threads()
        if isinstance(answer, list) and answer:
            if len(self._cache) >= MAXIMUM_CACHED:
                self._cache.clear()
            self._cache[question.host] = (self._loop.now + CACHE_TIME, answer)
            for done, _ in self._end(question):
                self._call(done, list(answer))
        elif isinstance(answer, list):
            self._fail(question, _failure(question.host, "it has no address"))
        else:
            words = getattr(answer, "strerror", None) or str(answer)
            self._fail(question, _failure(question.host, f"the system said {words}", answer))

    def _give_up(self, question: _Question) -> None:
        if question in self._queue:
            self._queue.remove(question)
        self._fail(question, _failure(question.host, f"no answer within {self._settings.resolve_timeout:g} s"))

    def _fail(self, question: _Question, error: ConnectionFailureException) -> None:
        for _, failed in self._end(question):
            self._call(failed, fresh(error))

    def _end(self, question: _Question) -> list[tuple[Done, Failed]]:
        """Whom to tell; nobody, when that was done before."""
        self._loop.timers.cancel(question.timer)
        if self._questions.get(question.host) is question:
            del self._questions[question.host]
        askers, question.askers = question.askers, []
        return askers

    def _call(self, function: Callable[..., object], argument: object) -> None:
        try:
            function(argument)
        except Exception:
            _log.exception("%r failed.", function)


def _literal(text: str) -> list[Address]:
    """The address that the text is. Raises ValueError when it is a name, OSError for an unknown zone."""
    address = ipaddress.ip_address(text)
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    found = socket.getaddrinfo(text, None, family, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST)
    return [(family, found[0][4])]


def _failure(host: str, why: str, cause: BaseException | None = None) -> ConnectionFailureException:
    error = ConnectionFailureException(
        f"The host name {host!r} could not be resolved: {why}; check its spelling and the DNS."
    )
    error.__cause__ = cause
    return error
