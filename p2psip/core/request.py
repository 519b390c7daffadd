"""A request of ours from the moment it is wanted until its last word: looking for a flow, then a transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from p2psip.core.authentication import CREDENTIAL_FIELDS, Attempt, unmet
from p2psip.core.effects import Complete, Provisional
from p2psip.core.tables import Input
from p2psip.core.ways import Way, Ways
from p2psip.errors import (
    ConnectionFailureException,
    OperationFailureException,
    OperationFailureReason,
    OperationTimeoutException,
    RealTimeException,
    fresh,
)
from p2psip.message import Request, Response

if TYPE_CHECKING:
    from p2psip.core.authentication import CredentialSource
    from p2psip.core.directory import EndpointRecord
    from p2psip.core.engine import Engine
    from p2psip.core.flow import Flow
    from p2psip.core.transaction import ClientTransaction
    from p2psip.core.usage import Usage
    from p2psip.timers import Timer


class ClientRequest:
    """Made by :meth:`p2psip.core.engine.Engine.send_request`; it is completed exactly once.

    Attributes:
        user: Who is told, by the effects Provisional and Complete. Requests of usages tell the usage instead.
        request: What is sent. The engine puts our Via in front when the flow is known.
        target: Where to: ``transport``, ``host`` and ``port``, for whoever opens flows and for sentences; an exception
            where no place could be found. Made of several ways, it is that of the way that is tried.
        flow: The flow that carries it, or None before there is one.
        transaction: The client transaction; None before and after it.
        record: Whose request it is, or None.
        avoid: Flows to servers of its target that would not take it.
        bears_contact: It bears the Contact of the endpoint.
        credentials: What challenges are answered with, or None.
        fallback: A flow that leads to the peer as well, should there be none to the target.
        is_cancelled: Nobody wants it any more: it is not sent again, whatever is asked for.
        is_done: The final response or an error has been reported, or the user has lost interest.
    """

    __slots__ = (
        "_attempt",
        "_engine",
        "_has_moved",
        "_is_last_server",
        "_limit",
        "_limit_seconds",
        "_over_at",
        "_refusal",
        "_tried",
        "_uri",
        "_way",
        "_ways",
        "avoid",
        "bears_contact",
        "credentials",
        "fallback",
        "flow",
        "is_cancelled",
        "is_done",
        "record",
        "request",
        "target",
        "transaction",
        "usage",
        "user",
    )

    def __init__(
        self,
        engine: Engine,
        request: Request,
        target: Any,
        user: Any,
        usage: Usage | None,
        seconds: float,
        record: EndpointRecord | None = None,
    ) -> None:
        self._engine = engine
        self._limit_seconds = seconds
        self._over_at = engine.now + seconds
        self._limit: Timer | None = None
        self._attempt: Attempt | None = None
        self.request = request
        self._uri = request.uri
        self._way: Way | None = None
        self._ways: tuple[Way, ...] = ()
        self._tried: tuple[str, ...] = ()
        self._has_moved = False
        self._refusal: Response | None = None
        self._is_last_server = False
        self.avoid: tuple[Any, ...] = ()
        if isinstance(target, Ways):
            self._way, self._ways = target.ways[0], target.ways[1:]
            target = self._way.target
        self.target = target
        self.user = user
        self.usage = usage
        self.record = record
        self.bears_contact = False
        self.credentials: CredentialSource | None = None if record is None else record.credentials
        self.fallback: Flow | None = None
        self.flow: Any = None
        self.transaction: ClientTransaction | None = None
        self.is_done = False
        self.is_cancelled = False

    @property
    def began_at(self) -> float:
        """When it was asked for."""
        return self._over_at - self._limit_seconds

    @property
    def has_other_ways(self) -> bool:
        """Where the one that it takes leads nowhere, it goes another one."""
        return bool(self._ways) or _is_alive(self.fallback)

    def complete_for(self, flow: Flow) -> None:
        """Give it what depends on the flow, and what its challengers want to see."""
        request, record = self.request, self.record
        if self._way is not None:
            self._way.lead(request, self._uri)
        if record is None:
            return
        if self.bears_contact:
            request.headers.set("Contact", record.endpoint._contact(flow, request.uri))
        if self._attempt is None and self.credentials is not None:
            known = record.known_answers.find(request, self.target, self.credentials)
            if known and not any(field in request.headers for field in CREDENTIAL_FIELDS):
                self._attempt = Attempt(known)
        if self._attempt is not None:
            self._attempt.write(request, self._engine.tokens.tag())

    def limit(self) -> None:
        """Give up when all its time is over."""
        engine = self._engine
        engine.timers.cancel(self._limit)
        self._limit = engine.timers.start(engine.now, self._over_at - engine.now, self._out_of_time)

    def leave_to_transaction(self) -> None:
        """The transaction has started. Its own timer (B or F) is enough where it is over first."""
        engine = self._engine
        if engine.now + 64 * engine.settings.t1 > self._over_at:
            if self._limit is None:
                self.limit()
        elif self._limit is not None:
            engine.timers.cancel(self._limit)
            self._limit = None

    # ------------------------------------------------------------------ what its transaction tells (ClientUser)

    def received(self, response: Response) -> None:
        """A response that its transaction passes up."""
        if response.status_code >= 200:
            if not self.is_done:
                if self._is_sent_again(response):
                    return
                self._refusal = None
                self._done()
                if self.usage is None:
                    self._engine.effects.append(Complete(self.user, response, None))
        else:
            if self.request.method == "INVITE":
                # From here on the ring limit counts, which is the session's.
                self._engine.timers.cancel(self._limit)
                self._limit = None
            if response.status_code > 100:
                self._is_let_in()
            if self.usage is None:
                self._engine.effects.append(Provisional(self.user, response))
        if self.usage is not None:
            self.usage.responded(self._engine.now, self, response)

    def _is_sent_again(self, response: Response) -> bool:
        """It was challenged, and there is an answer that was not given before; or it has come to somebody who cannot take
        it, and there is somebody else."""
        attempt = self._attempt
        if self.is_cancelled:
            return False
        if response.status_code == 503:
            return self._takes_another_server(response) or self._takes_another_way(f"{self._where()} answered 503")
        if response.status_code in (401, 407):
            return self._is_answered(response)
        if attempt is not None:
            self._is_let_in()
            attempt.accepted(response)
        return False

    def _is_let_in(self) -> None:
        """What it has answered was right, and is so for others from now on."""
        if self._attempt is not None and self.record is not None:
            self.record.known_answers.remember(self.request, self.target, self._attempt.proven())

    def _is_answered(self, challenge: Response) -> bool:
        record, engine, attempt = self.record, self._engine, self._attempt
        left = self._over_at - engine.now
        is_by_hand = attempt is None and any(field in self.request.headers for field in CREDENTIAL_FIELDS)
        if record is not None and self.credentials is not None and left > 0 and not is_by_hand:
            if attempt is None:
                attempt = self._attempt = Attempt()
            if attempt.take(challenge, self.credentials):
                self._start_over(self.flow)
                engine.dialogs.number_again(self.request)
                return True
            record.known_answers.forget(self.request, self.target, attempt.refused(challenge))
        challenge.unmet = unmet(challenge, self.request, self.credentials)
        return False

    def not_opened(self, error: RealTimeException) -> None:
        """There is no flow to its target, or to no other server of it."""
        refusal = self._refusal
        if refusal is not None and not self.is_done:
            self._refusal, self._is_last_server = None, True
            self._engine.no_longer_opening(self)
            self.flow = self.avoid[-1]
            self.flow.unanswered += 1
            self.received(refusal)
        elif not self._takes_another_way(str(error)):
            self.fail(fresh(error))

    def _takes_another_server(self, refusal: Response) -> bool:
        """The name that it goes to may have more servers than the one that is overloaded (RFC 3263 4.3). When it has not,
        that one's word counts."""
        is_named = not isinstance(self.target, RealTimeException) and self.target.port is None
        if self._is_last_server or not is_named or self._over_at <= self._engine.now:
            return False
        self._refusal = refusal
        self.avoid = (*self.avoid, self.flow)
        self._start_over(None)
        return True

    def _takes_another_way(self, why: str) -> bool:
        """The way that it has taken leads nowhere, and there is another one (RFC 3261 8.1.2, RFC 3263 4.3)."""
        if self.is_done or self.is_cancelled or not self._ways or self._over_at <= self._engine.now:
            return False
        self._tried = (*self._tried, why)
        self._way, self._ways = self._ways[0], self._ways[1:]
        self.target = self._way.target
        self.avoid, self._refusal, self._is_last_server = (), None, False
        self._start_over(None)
        return True

    def _start_over(self, flow: Flow | None) -> None:
        """Look for a flow once more, in a transaction of its own. The time counts on."""
        engine, transaction, request = self._engine, self.transaction, self.request
        self.limit()
        if transaction is not None and not transaction.is_terminated:
            # It acknowledges the refusal each time that it comes, and for that keeps what it has sent.
            transaction.request = Request(request.method, request.uri, request.headers, request.body)
        if self.flow is not None:
            self.flow.unanswered -= 1
        self.flow, self.transaction = None, None
        request.headers.remove("Via")
        engine.open_again(self, flow)

    def timed_out(self) -> None:
        """64*T1 are over."""
        self._engine.counts.timeouts["transaction"] += 1
        self.flow.doubt(self._engine.now - 64 * self._engine.settings.t1)
        error = self._not_answered(64 * self._engine.settings.t1)
        if not self._takes_another_way(str(error)):
            self.fail(error)

    def flow_lost(self, error: RealTimeException | None) -> None:
        """The flow was closed before the final answer; None: by the peer, in order."""
        if error is not None and type(error) is not ConnectionFailureException:  # it says why nothing has taken effect
            self.fail(fresh(error))
            return
        if self._is_moved():
            return
        how = "the connection was closed by the peer before it answered" if error is None else "was not answered"
        failure = ConnectionFailureException(
            f"{self} was sent to {self._where()}, but {how}; whether the request took effect is not known, send it "
            "again if it may come twice." + ("" if error is None else f" {error}")
        )
        failure.__cause__ = None if error is None else error.__cause__
        self.fail(failure)

    def _is_moved(self) -> bool:
        """It has met the end of a connection that had served before, and nothing of it had left: it can go over another
        one without coming twice. Once; and one that is closed before it has served is an answer."""
        flow, left = self.flow, self._over_at > self._engine.now
        if (
            self.is_done
            or self.is_cancelled
            or self._has_moved
            or not left
            or isinstance(self.target, RealTimeException)
        ):
            return False
        if not flow.messages_received or not flow.is_unsent(self.request.top_branch):
            return False
        self._has_moved = True
        self._start_over(None)
        return True

    # ------------------------------------------------------------------ its end

    def fail(self, error: Exception) -> None:
        """Report the error, if nothing final was reported before."""
        if self.is_done:
            return
        if self._tried and isinstance(error, RealTimeException):
            error = fresh(error)
            error.args = (f"{error} Before that: {' '.join(self._tried)}", *error.args[1:])
        self._done()
        if self.usage is None:
            self._engine.effects.append(Complete(self.user, None, error))
        else:
            self.usage.failed(self._engine.now, self, error)  # type: ignore[arg-type]

    def forget(self) -> None:
        """End it without a word; late answers find nothing."""
        transaction = self.transaction
        if not self.is_done:
            self._done()
            if transaction is not None:
                transaction.take(Input.ABANDON)

    def _done(self) -> None:
        self.is_done = True
        if self._limit is not None:
            self._engine.timers.cancel(self._limit)
            self._limit = None
        if self.flow is None:
            self._engine.no_longer_opening(self)
        else:
            self.flow.unanswered -= 1
        self.transaction = None

    def _out_of_time(self) -> None:
        """The ceiling, or the time-out of the caller, whichever was earlier."""
        is_ceiling = self._limit_seconds >= self._engine.settings.request_ceiling
        self._engine.counts.timeouts["request_ceiling" if is_ceiling else "caller"] += 1
        if self.flow is None:
            error = OperationTimeoutException(
                f"{self} could not be sent: there was no connection to {self._where()} after "
                f"{self._limit_seconds:g} s; check the address, and that the peer is running and can be reached."
            )
        else:
            error = self._not_answered(self._limit_seconds)
        transaction = self.transaction
        self.fail(error)
        if transaction is not None:
            transaction.take(Input.ABANDON)

    # ------------------------------------------------------------------ sentences

    def __str__(self) -> str:
        return f"{self.request.method} to {self._uri}"

    def _where(self) -> str:
        target = self.target
        if isinstance(target, RealTimeException):  # which did not matter, because there was a flow
            return "its peer" if self.flow is None else f"{self.flow.remote[0]}:{self.flow.remote[1]}"
        host = f"[{target.host}]" if ":" in target.host else target.host
        port = "" if target.port is None else f":{target.port}"
        return f"{host}{port} over {target.transport}"

    def _not_answered(self, seconds: float) -> OperationTimeoutException:
        return OperationTimeoutException(
            f"{self} was sent to {self._where()} and not answered within {seconds:g} s; check that a SIP "
            "endpoint is running there, and send it again if it may come twice."
        )


class Acknowledgement:
    """An ACK that waits for a flow; nobody waits for it."""

    __slots__ = ("fallback", "flow", "request", "target")

    avoid = ()
    is_done = False

    def __init__(self, request: Request, target: Any, fallback: Flow | None) -> None:
        self.request = request
        self.target = target
        self.fallback = fallback
        self.flow: Any = None

    @property
    def has_other_ways(self) -> bool:
        """Where there is none to the target, it goes another one."""
        return _is_alive(self.fallback)


class Nobody:
    """Works for the client transaction of a CANCEL, in whose answer nobody is interested."""

    __slots__ = ()

    def received(self, response: Response) -> None:
        """The answer to the INVITE says more."""

    def timed_out(self) -> None:
        """The INVITE has a limit of its own."""

    def flow_lost(self, error: RealTimeException | None) -> None:
        """The INVITE is told."""


NOBODY = Nobody()


def _is_alive(flow: Flow | None) -> bool:
    return flow is not None and flow.is_connected


def throttled(client_request: ClientRequest, limit: str, why: str) -> OperationFailureException:
    """A limit of ours keeps the request back."""
    client_request._engine.counts.refused[limit] += 1
    return OperationFailureException(
        f"{client_request} was not sent, because {why}; wait for answers before sending more, or raise the limit "
        "in the settings.",
        OperationFailureReason.THROTTLED,
    )
