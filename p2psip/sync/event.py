"""Events in the manner of .NET: ``obj.changed += handler``, ``handler(sender, args)``."""

from __future__ import annotations

import concurrent.futures
import inspect
import threading
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, TypeVar, cast, overload

from p2psip.errors import OperationTimeoutException, RealTimeInvalidOperationException
from p2psip.logs import Log
from p2psip.sync import waiting
from p2psip.sync.operation import Operation

_log = Log(__name__)

SenderT = TypeVar("SenderT")
ArgsT = TypeVar("ArgsT")
OwnerT = TypeVar("OwnerT")

OnError = Callable[[Any, BaseException, Any], object]
"""Told of an exception that escaped: the sender, the exception, the function that raised it."""


class Event(Generic[SenderT, ArgsT]):
    """Something that an object tells to those who want to know. Usable from any thread.

    Declared in a class body it belongs to each instance, and only ``+=`` and ``-=`` may change it. Handlers are held
    by strong references, run in the order in which they were added, and as often as they were added. Adding and
    removing while the event is raised takes effect the next time. True while there is a handler.
    """

    __slots__ = ("_declared", "_handlers", "_lock", "_name", "_owner")

    def __init__(self, name: str = "event", owner: object = None) -> None:
        """Make one; a declaration in a class body learns its name and its owner by itself.

        Args:
            name: For messages to people.
            owner: The object whose strand raises it; kept by a weak reference.
        """
        self._name = name
        self._owner = None if owner is None else weakref.ref(owner)
        self._declared = False
        self._lock = threading.RLock()  # only for changes: raising takes a snapshot
        self._handlers: tuple[Callable[[SenderT, ArgsT], object] | Expectation[SenderT, ArgsT], ...] = ()

    # ------------------------------------------------------------------ as a declaration

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name
        self._declared = True

    @overload
    def __get__(self, instance: None, owner: type) -> Event[SenderT, ArgsT]: ...
    @overload
    def __get__(self, instance: OwnerT, owner: type) -> Event[OwnerT, ArgsT]: ...
    def __get__(self, instance: object, owner: type) -> Event[Any, ArgsT]:
        if instance is None:
            return self
        event: Event[Any, ArgsT] | None = instance.__dict__.get(self._name)
        if event is None:
            # setdefault is atomic: of two threads that come here together one makes the event that both get.
            event = cast("Event[Any, ArgsT]", instance.__dict__.setdefault(self._name, Event(self._name, instance)))
        return event

    # mypy takes the type of the target of += from here, and does not solve a type variable there: with Any it lets
    # handlers for any sender pass, with SenderT it would refuse those that want the subclass they listen to.
    def __set__(self, instance: object, value: Event[Any, ArgsT]) -> None:
        if value is not instance.__dict__.get(self._name):
            raise AttributeError(
                f"{type(instance).__name__}.{self._name} is an event and cannot be assigned: "
                "use += to add a handler and -= to remove one."
            )

    # ------------------------------------------------------------------ handlers

    def __iadd__(self, handler: Callable[[SenderT, ArgsT], object]) -> Event[SenderT, ArgsT]:
        if self._declared:
            raise TypeError(f"{self._name} is an event of each object: add the handler to an object, not to the class.")
        if not callable(handler):
            raise TypeError(f"A handler of {self._name} is a function of sender and args, not {handler!r}.")
        if inspect.iscoroutinefunction(handler):
            raise TypeError(
                f"A handler of {self._name} is called on a worker thread and cannot be a coroutine function."
            )
        self._add(handler)
        return self

    def __isub__(self, handler: Callable[[SenderT, ArgsT], object]) -> Event[SenderT, ArgsT]:
        self._remove(handler)
        return self

    def _add(self, handler: Callable[[SenderT, ArgsT], object] | Expectation[SenderT, ArgsT]) -> None:
        with self._lock:
            self._handlers = (*self._handlers, handler)

    def _remove(self, handler: Callable[[SenderT, ArgsT], object] | Expectation[SenderT, ArgsT]) -> None:
        """Remove the last one that is equal, if any."""
        while True:
            # Comparing runs code of the handlers' classes, so not under the lock.
            before = self._handlers
            for index in reversed(range(len(before))):
                if before[index] == handler:
                    break
            else:
                return
            with self._lock:
                if self._handlers is before:
                    self._handlers = before[:index] + before[index + 1 :]
                    return

    def __bool__(self) -> bool:
        return bool(self._handlers)

    @property
    def handlers(self) -> tuple[Callable[[SenderT, ArgsT], object], ...]:
        """The handlers of just now, without open expectations."""
        return tuple(handler for handler in self._handlers if not isinstance(handler, Expectation))

    def __repr__(self) -> str:
        return f"<Event {self._title()}, {len(self._handlers)} handlers>"

    def _title(self) -> str:
        owner = None if self._owner is None else self._owner()
        return self._name if owner is None else f"{type(owner).__name__}.{self._name}"

    # ------------------------------------------------------------------ raising

    def raise_event(
        self,
        sender: SenderT,
        args: ArgsT,
        on_error: OnError | None = None,
        done: Callable[[], object] | None = None,
    ) -> bool:
        """Call the handlers of just now, one after the other; no lock is held. Worker threads only.

        Args:
            on_error: Told of what a handler raised (after it was logged); the next handler runs in any case.
            done: Called once, with all handlers behind it: before this method returns, or, where an ``expect``
                caught the event, by the thread that ends its block.

        Returns:
            False: An ``expect`` holds ``done`` back.
        """
        hold: _Hold | None = None
        strand = waiting.here.strand
        for handler in self._handlers:
            if strand is not None:
                strand.handler = handler
            try:
                if isinstance(handler, Expectation):
                    if hold is None:
                        hold = _Hold(done)
                    handler._offer(sender, args, hold)
                else:
                    handler(sender, args)
            except BaseException as error:
                self._report(sender, error, handler, on_error)
        if hold is not None:
            return hold.release()
        if done is not None:
            done()
        return True

    def _report(self, sender: SenderT, error: BaseException, handler: object, on_error: OnError | None) -> None:
        name = getattr(handler, "__qualname__", None) or repr(handler)
        _log.error("The handler %s of %s raised", name, self._title(), exc_info=error)
        if on_error is not None:
            try:
                on_error(sender, error, handler)
            except Exception:
                _log.exception("Reporting an exception of %s raised one itself", name)

    # ------------------------------------------------------------------ waiting

    def expect(
        self, timeout: float = 30.0, predicate: Callable[[ArgsT], object] | None = None
    ) -> Expectation[SenderT, ArgsT]:
        """For scripts and tests: ``with obj.changed.expect(timeout=5) as got: ...``, then ``got.args``.

        Waits at the end of the block for the first event since its beginning, so that none is missed. Within the
        block ``got.args`` waits as well. It counts as a handler; what is done automatically after the handlers
        (the answer to a message) waits for the end of the block: do not wait in the block for what depends on it.

        Args:
            timeout: Seconds, from the time at which the waiting begins.
            predicate: Called with the args on a worker thread; what it does not find true is not the event waited for.

        Raises:
            RealTimeInvalidOperationException: Called in a handler of the same object, which would wait for itself.
            ValueError, TypeError: An argument. There is no waiting without an end.
        """
        if isinstance(timeout, bool) or not isinstance(timeout, int | float):
            raise TypeError(f"The time-out of expect() is a number of seconds, not {timeout!r}.")
        if not timeout >= 0:
            raise ValueError(f"The time-out of expect() cannot be {timeout!r} seconds.")
        if predicate is not None and not callable(predicate):
            raise TypeError(f"The predicate of expect() is a function of the args, not {predicate!r}.")
        self._check()
        return Expectation(self, timeout, predicate)

    def _check(self) -> None:
        owner = None if self._owner is None else self._owner()
        if owner is not None and waiting.here.owner is owner:
            raise RealTimeInvalidOperationException(
                f"{self._title()}.expect() in a handler of the same object would wait for ever: "
                "the next event comes when the handler has returned."
            )


def has_handlers(instance: object, name: str) -> bool:
    """True while there is a handler of that event of the object; no event is made where nobody has asked for it."""
    event: Event[Any, Any] | None = instance.__dict__.get(name)
    return event is not None and bool(event._handlers)


class Expectation(Generic[SenderT, ArgsT]):
    """One event that is waited for; made by :meth:`Event.expect`."""

    __slots__ = ("_closed", "_event", "_hold", "_lock", "_operation", "_predicate", "_timeout")

    def __init__(
        self, event: Event[SenderT, ArgsT], timeout: float, predicate: Callable[[ArgsT], object] | None
    ) -> None:
        self._event = event
        self._timeout = timeout
        self._predicate = predicate
        self._lock = threading.RLock()
        self._closed = True
        self._hold: _Hold | None = None
        self._operation: Operation[tuple[SenderT, ArgsT]] = Operation(event._title(), callbacks=_no_callbacks)

    @property
    def args(self) -> ArgsT:
        """The args of the event; within the block this waits for it.

        Raises:
            OperationTimeoutException: It did not come in time.
        """
        return self._result()[1]

    @property
    def sender(self) -> SenderT:
        """Who raised it; within the block this waits for it.

        Raises:
            OperationTimeoutException: It did not come in time.
        """
        return self._result()[0]

    def __enter__(self) -> Expectation[SenderT, ArgsT]:
        self._event._check()
        self._closed = False
        self._event._add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._result()
        finally:
            self._event._remove(self)
            with self._lock:
                self._closed = True
                hold, self._hold = self._hold, None
            if hold is not None:
                hold.release()

    def _result(self) -> tuple[SenderT, ArgsT]:
        if self._closed and not self._operation.done():
            raise RealTimeInvalidOperationException(
                f"{self._operation.name} is expected by a with statement only; it did not come while its block ran."
            )
        try:
            return self._operation.result(self._timeout)
        except concurrent.futures.TimeoutError:
            if self._operation.done():  # at the last moment, or it is the predicate that raised a TimeoutError
                return self._operation.result()
            raise OperationTimeoutException(
                f"{self._operation.name} was expected within {self._timeout:g} s and did not come."
            ) from None

    def _offer(self, sender: SenderT, args: ArgsT, hold: _Hold) -> None:
        """Worker thread: the event was raised."""
        if self._operation.done():
            return
        try:
            wanted = self._predicate is None or self._predicate(args)
        except BaseException as error:
            self._operation.fail(error)
            raise
        if not wanted:
            return
        with self._lock:
            # Holding before completing: once the block's end is free to run it must find what to release.
            if self._closed or self._hold is not None or self._operation.done():
                return
            hold.add()
            self._hold = hold
        self._operation.complete((sender, args))


class _Hold:
    """What follows the handlers, and how many it still has to wait for: the raising itself, and the expectations."""

    __slots__ = ("_count", "_done", "_lock")

    def __init__(self, done: Callable[[], object] | None) -> None:
        self._count = 1
        self._done = done
        self._lock = threading.RLock()

    def add(self) -> None:
        with self._lock:
            self._count += 1

    def release(self) -> bool:
        """One less. True: it was the last, and what follows is done."""
        with self._lock:
            self._count -= 1
            if self._count:
                return False
        if self._done is not None:
            try:
                self._done()
            except Exception:
                _log.exception("What follows an event that was expected raised")
        return True


def _no_callbacks(*_: object) -> bool:
    """An expectation's operation is its own affair; nobody can add a callback to it."""
    return True
