"""The glue: one engine, one loop with its sockets, one dispatcher for one connection manager.

Everything here runs on the loop thread, but for the methods that say otherwise.
"""

from __future__ import annotations

import collections
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from p2psip.config import ManagerSettings
from p2psip.core import effects
from p2psip.core.authentication import CredentialSource
from p2psip.core.directory import Directory, EndpointRecord
from p2psip.core.engine import Engine
from p2psip.core.request import Acknowledgement, ClientRequest
from p2psip.core.transaction import ServerTransaction
from p2psip.core.uas import BUSY
from p2psip.core.usages import install
from p2psip.drains import Drained, Drains
from p2psip.errors import (
    ConnectionFailureException,
    OperationFailureException,
    OperationFailureReason,
    RealTimeException,
    TlsFailureException,
    limited,
)
from p2psip.logs import Log
from p2psip.message import Malformed, Request, Response
from p2psip.net.connection import Connection
from p2psip.net.given import Entry, ResolverNames, given_names
from p2psip.net.loop import Clock, Loop, LoopEnded
from p2psip.net.network import Network, SocketFactory, Target
from p2psip.net.pool import Pool
from p2psip.net.resolver import Resolver
from p2psip.net.returns import Returns
from p2psip.pressure import Pressure
from p2psip.sync import Dispatcher, Event, OnError, Operation, forbid_blocking, fork_safe_lock
from p2psip.tokens import SecretTokens
from p2psip.trace import excerpt

if TYPE_CHECKING:
    from p2psip.net.tls import TlsContexts

_log = Log(__name__)

BACKLOG = 16
"""What waits for the loop, from which on those who send let it have the processor."""
INSTANT = 1e-6
"""Seconds."""
RECENT = 16
"""Messages that are kept to be logged when the engine fails."""


class Waiter(Protocol):
    """A request of the facade: where it goes, and who is told. The engine knows it as the request's user."""

    request: Request
    target: Target
    timeout: float | None
    client_request: ClientRequest | None

    @property
    def record(self) -> EndpointRecord: ...
    @property
    def bears_contact(self) -> bool: ...
    @property
    def credentials(self) -> CredentialSource | None: ...
    @property
    def operation(self) -> Operation[Any]: ...
    @property
    def pending(self) -> set[Any]: ...
    def complete(self, response: Response | None, error: RealTimeException | None) -> None: ...


class StackOwner(Protocol):
    """What the connection manager is told, on the loop thread."""

    @property
    def _authorization_wanted(self) -> bool: ...
    @property
    def trace(self) -> Event[Any, Any]: ...
    def _sent_by(self, connection: Connection) -> str: ...
    def _authorize(self, connection: Connection) -> None: ...
    def _connection_ready(self, connection: Connection) -> None: ...
    def _connection_closed(self, connection: Connection, error: RealTimeException | None) -> None: ...
    def _pool_added(self, pool: Pool) -> None: ...
    def _pool_removed(self, pool: Pool) -> None: ...
    def _handshake_failed(self, connection: Connection, error: TlsFailureException) -> None: ...
    def _listening_aborted(self, error: RealTimeException) -> None: ...
    def _traced(self, direction: str, connection: Connection, when: float, data: bytes) -> None: ...
    def _loop_ended(self, cause: BaseException | None) -> None: ...


class Environment(SocketFactory, Protocol):
    """Another world for tests: its sockets, its names, its time."""

    @property
    def hosts(self) -> Mapping[str, Sequence[Entry]]: ...
    @property
    def clock(self) -> Clock: ...


class Stack:
    """One per connection manager. Constructing it starts nothing; the loop starts with the first thing to do."""

    environment: ClassVar[Environment | None] = None
    """What stands in for sockets, names and time in the stacks that are made from now on; None is the real world."""

    def __init__(
        self,
        name: str,
        settings: ManagerSettings,
        owner: StackOwner,
        *,
        tls: TlsContexts | None,
        names: ResolverNames | None,
        on_unhandled: OnError,
    ) -> None:
        self.settings = settings
        self.dispatcher = Dispatcher(name, settings.maximum_workers, on_unhandled)
        self.directory = Directory()
        self.tokens = SecretTokens()
        self.engine = Engine(settings, self.tokens, self.directory)
        install(self.engine)
        world = self.environment
        self.loop = Loop(name, self._loop_ended) if world is None else Loop(name, self._loop_ended, world.clock)
        resolver = Resolver(self.loop, settings, given_names(names, None if world is None else world.hosts))
        self.network = Network(self.loop, settings, self, tls=tls, resolver=resolver, factory=world)
        # Where what the manager itself tells waits for handlers.
        self.events = self.network.admission.events = self.dispatcher.strand("connection manager", owner=owner)
        self._returns = Returns(self.network)
        self.loop.add_clock(self)
        self._owner = owner
        self._tracing = owner.trace
        self.traces: tuple[Callable[[str, Connection, float, bytes], object], ...] = ()  # told of messages, on the loop
        self._start_lock = fork_safe_lock()
        self._started = False
        self._running = False
        self.pressure = Pressure(self.loop, settings, self.dispatcher, self._refuse)
        self.pressure.guard(self.engine.acceptors)
        self._drains = Drains()
        self._recent: collections.deque[tuple[str, Connection, Any]] = collections.deque(maxlen=RECENT)
        self._handlers: dict[type, Callable[[Any], None]] = {
            effects.Send: self._send_effect,
            effects.SendBack: self._send_back,
            effects.OpenFlow: self._open_flow,
            effects.Deliver: self._deliver,
            effects.Arrived: self._arrived,
            effects.Tell: self._tell,
            effects.Complete: self._complete,
            effects.Provisional: self._provisional,
            effects.Expired: self._expired,
        }

    # ------------------------------------------------------------------ any thread

    def post(self, function: Callable[..., object], *args: object) -> None:
        """Run it on the loop thread soon. Raises LoopEnded when there is no loop any more."""
        if not self._started:
            with self._start_lock:
                if not self._started:
                    self.loop.start()
                    self.loop.post(forbid_blocking, self.loop.name)
                    self._started = True
        self.loop.post(function, *args)

    def send(self, waiter: Waiter) -> None:
        """Send the waiter's request; its operation ends in any case."""
        try:
            self.post(self._send, waiter)
        except LoopEnded as error:
            waiter.operation.fail(error.failure())
        if self.loop.backlog >= BACKLOG:
            # Else the interpreter's lock stays with a thread that sends without pause for 5 ms at a time, and the
            # peer, which could be at work, has nothing to do meanwhile.
            time.sleep(INSTANT)

    def cancel(self, operation: Operation[Any]) -> None:
        """Forget the answer to the request of that operation."""
        try:
            self.post(self._cancel, operation)
        except LoopEnded as error:
            operation.fail(error.failure())

    def respond(self, transaction: ServerTransaction, response: Response) -> None:
        """Answer a request that was delivered."""
        try:
            self.loop.post(self._respond, transaction, response)
        except LoopEnded:
            _log.debug("No answer %d: the connection manager is closed.", response.status_code)

    def command(self, operation: Operation[Any], function: Callable[..., object], *args: object) -> None:
        """Give the engine a command, ``function(now, *args)``, that ends the operation sooner or later."""

        def run() -> None:
            function(self.loop.now, *args)
            self._run()

        self.post_operation(operation, run)

    def call(self, name: str, function: Callable[..., Any], *args: object) -> Operation[Any]:
        """Run it on the loop thread; the operation has its result or its error."""
        operation: Operation[Any] = Operation(name, callbacks=self.dispatcher.submit)
        self.post_operation(operation, lambda: operation.complete(function(*args)))
        return operation

    def post_operation(self, operation: Operation[Any], function: Callable[[], object]) -> None:
        """Run it on the loop thread; the operation fails when it raises or cannot be run."""

        def run() -> None:
            try:
                function()
            except Exception as error:
                operation.fail(error)

        try:
            self.post(run)
        except LoopEnded as error:
            operation.fail(error.failure())

    def disconnect(self, connection: Connection) -> None:
        """Close the connection gracefully."""
        try:
            error = ConnectionFailureException(
                f"The connection with {connection.peer} was closed by disconnect() on this side before the answer "
                "came; whether the request took effect is not known."
            )
            self.post(connection.close, limited("disconnect", error))
        except LoopEnded:
            pass

    # ------------------------------------------------------------------ the loop's clock

    def next_deadline(self) -> float | None:
        return self.engine.next_deadline()

    def advance(self, now: float) -> None:
        self.engine.advance(now)
        self._run()

    # ------------------------------------------------------------------ requests of ours, answers of ours

    def _send(self, waiter: Waiter) -> None:
        if waiter.operation.done():
            return
        waiter.pending.add(waiter)
        target = waiter.target
        waiter.client_request = self.engine.send_request(
            self.loop.now,
            waiter.request,
            target,
            waiter,
            timeout=waiter.timeout,
            flow=self.network.free(target) if type(target) is Target else None,
            record=waiter.record,
            bears_contact=waiter.bears_contact,
            credentials=waiter.credentials,
        )
        self._run()

    def _cancel(self, operation: Operation[Any]) -> None:
        waiter = operation.context
        if waiter is not None:
            self._forget(waiter)
            self._run()
        operation.end_cancelled()

    def _forget(self, waiter: Waiter) -> None:
        waiter.pending.discard(waiter)
        if waiter.client_request is not None:
            self.engine.cancel_request(self.loop.now, waiter.client_request)

    def _respond(self, transaction: ServerTransaction, response: Response) -> None:
        self.engine.respond(self.loop.now, transaction, response)
        self._run()

    # ------------------------------------------------------------------ endpoints

    def remove_endpoint(self, record: EndpointRecord, pending: set[Any]) -> None:
        """Forget the endpoint and fail what it waits for."""
        self.directory.remove(record)
        for waiter in list(pending):
            self._forget(waiter)
            waiter.complete(
                None,
                OperationFailureException(
                    f"The endpoint {record.owner} was terminated before {waiter.operation.name} was answered.",
                    OperationFailureReason.ENDPOINT_TERMINATED,
                ),
            )
        self._run()

    def drain(self, endpoint: Drained, operation: Operation[None]) -> None:
        """End the operation as soon as the endpoint has nothing under way."""
        self._drains.add(endpoint, operation)
        self._run()

    def refresh_sent_by(self) -> None:
        """The listening port has changed, and with it what our Via says on each connection."""
        for connection in self.network.connections():
            connection.be_called(self._owner._sent_by(connection))

    # ------------------------------------------------------------------ effects of the engine

    def _run(self) -> None:
        """Carry out what the engine asks for, in order. Carrying out may make it ask for more, which comes after."""
        if self._running:
            return
        engine, handlers = self.engine, self._handlers
        self._running = True
        try:
            while effects := engine.effects:
                engine.effects = []
                for effect in effects:
                    try:
                        handlers[type(effect)](effect)
                    except Exception:
                        _log.exception(
                            "The effect %r could not be carried out, which is an error of this library", effect
                        )
        finally:
            self._running = False
        if self._drains.waiting:
            self._drains.look()

    def _send_effect(self, effect: effects.Send) -> None:
        flow, data = effect.flow, effect.data
        self._recent.append(("sent", flow, data))
        if self._tracing._handlers or self.traces:
            self._traced("sent", flow, data)
        flow.send(data)

    def _send_back(self, effect: effects.SendBack) -> None:
        def over(report: Callable[[float, Any], None], outcome: Any) -> None:
            report(self.loop.now, outcome)
            self._run()

        opened, failed = (functools.partial(over, report) for report in (effect.late.opened, effect.late.failed))
        self._returns.acquire(Target(*effect.way), opened, failed)

    def _open_flow(self, effect: effects.OpenFlow) -> None:
        request, target, connection = effect.client_request, effect.target, effect.flow
        if connection is not None and connection.is_connected:
            self._flow_opened(request, connection)
        elif isinstance(target, RealTimeException):
            self._flow_failed(request, target)
        elif not request.avoid and (connection := self.network.free(target)) is not None:
            self._flow_opened(request, connection)
        else:
            opened = functools.partial(self._flow_opened, request)
            failed = functools.partial(self._flow_failed, request)
            self.network.acquire(target, opened, failed, request.avoid, request.has_other_ways)

    def _flow_opened(self, request: ClientRequest | Acknowledgement, connection: Connection) -> None:
        self.engine.flow_opened(self.loop.now, request, connection)
        self._run()

    def _flow_failed(self, request: ClientRequest | Acknowledgement, error: RealTimeException) -> None:
        self.engine.flow_failed(self.loop.now, request, error)
        self._run()

    def _complete(self, effect: effects.Complete) -> None:
        effect.user.complete(effect.response, effect.error)

    def _arrived(self, effect: effects.Arrived) -> None:
        effect.record.endpoint._arrived(effect.usage)

    def _tell(self, effect: effects.Tell) -> None:
        effect.usage.user._happened(effect.event)

    def _provisional(self, effect: effects.Provisional) -> None:
        """Nobody waits for provisional answers to requests outside of sessions."""

    def _expired(self, effect: effects.Expired) -> None:
        if effect.transaction.user is not None:
            effect.transaction.user._expired(self.settings.handler_limit)

    def _deliver(self, effect: effects.Deliver) -> None:
        endpoint: Any = effect.record.endpoint
        transaction = effect.transaction
        self.pressure.deliver(endpoint._strand, transaction, endpoint._deliver, transaction, effect.request)

    def _refuse(self, transaction: ServerTransaction) -> None:
        self._respond(transaction, transaction.create_response(BUSY.status_code, headers=BUSY.headers))

    # ------------------------------------------------------------------ what the network tells

    @property
    def authorization_wanted(self) -> bool:
        return self._owner._authorization_wanted

    def authorize_connection(self, connection: Connection) -> None:
        self._owner._authorize(connection)

    def connection_ready(self, connection: Connection) -> None:
        connection.be_called(self._owner._sent_by(connection))
        self._owner._connection_ready(connection)

    def messages_received(self, connection: Connection, messages: list[Request | Response | Malformed]) -> None:
        now, receive = self.loop.now, self.engine.receive
        recent, tracing = self._recent, self._tracing
        for message in messages:
            recent.append(("received", connection, message))
            if tracing._handlers or self.traces:
                self._traced("received", connection, message)
            try:
                receive(now, connection, message)
            except Exception:
                self._log_failure(connection)
                connection.close()
                break
        self._run()

    def answered(self, connection: Connection, data: bytes) -> None:
        self._recent.append(("sent", connection, data))
        if self._tracing._handlers or self.traces:
            self._traced("sent", connection, data)

    def connection_closed(self, connection: Connection, error: RealTimeException | None) -> None:
        self.engine.flow_closed(self.loop.now, connection, error)
        self._run()
        self.pressure.forget(connection)
        self._owner._connection_closed(connection, error)

    def connection_pool_added(self, pool: Pool) -> None:
        self._owner._pool_added(pool)

    def connection_pool_removed(self, pool: Pool) -> None:
        self._owner._pool_removed(pool)

    def handshake_failed(self, connection: Connection, error: TlsFailureException) -> None:
        self._owner._handshake_failed(connection, error)

    def listening_aborted(self, error: RealTimeException) -> None:
        self._owner._listening_aborted(error)

    # ------------------------------------------------------------------ what people see

    def _traced(self, direction: str, connection: Connection, message: Any) -> None:
        """Somebody looks on."""
        when, octets = time.time(), _octets(message)
        for trace in self.traces:
            trace(direction, connection, when, octets)
        if self._tracing:
            self._owner._traced(direction, connection, when, octets)
            if direction == "received":  # those who look on may not keep up
                self.pressure.slow_down(self.events, connection)

    def _log_failure(self, connection: Connection) -> None:
        """An exception of the engine is a bug of ours: what led to it helps to find it."""
        last = [f"{way} {excerpt(_octets(message))}" for way, _, message in list(self._recent)[-4:]]
        _log.exception(
            "A message from %s:%d could not be handled, which is an error of this library; the connection is closed. "
            "The last messages: %s; %s; %s; %s",
            *connection.remote,
            *(*last, "-", "-", "-", "-")[:4],
        )

    # ------------------------------------------------------------------ the end

    def dispose(self, grace: float, done: Callable[[], None]) -> None:
        """Fail what is pending, close every connection gracefully, then call ``done``."""
        self.engine.shutdown(
            self.loop.now,
            OperationFailureException(
                "The connection manager was disposed before the answer came.", OperationFailureReason.ABORTED
            ),
        )
        self._run()
        self.network.close_all(grace, done)

    def _loop_ended(self, cause: BaseException | None) -> None:
        """Last act of the loop thread, whatever ended it: nobody is left waiting."""
        try:
            self.engine.shutdown(
                self.loop.now,
                OperationFailureException(
                    "The connection manager's thread has ended"
                    + (f" because of an error of its own: {cause!r}." if cause is not None else "."),
                    OperationFailureReason.ABORTED,
                ),
            )
            for effect in self.engine.take_effects():
                if type(effect) is effects.Complete:
                    self._complete(effect)
            self._drains.end()
        finally:
            self._owner._loop_ended(cause)


def _octets(message: Request | Response | Malformed | bytes) -> bytes:
    if isinstance(message, bytes):
        return message
    return message.data if isinstance(message, Malformed) else message.to_bytes()
