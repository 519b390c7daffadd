"""What can be done with a call that came in: it is taken, announced, refused or sent elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from p2psip import arguments
from p2psip.arguments import Headers
from p2psip.core.dialog import Content
from p2psip.enums import SignalingState
from p2psip.errors import RealTimeInvalidOperationException
from p2psip.offers import Answerer, early_answer_sent
from p2psip.session_base import SessionBase
from p2psip.sync import Operation
from p2psip.values import ContentDescription, RealTimeAddress, SipRequestData


class IncomingSession(SessionBase):
    """The part of a session that answers the INVITE of a peer."""

    def accept(
        self,
        answer: ContentDescription | Answerer | None = None,
        headers: Headers | None = None,
    ) -> SipRequestData:
        """Take the call: send 200 and wait for the ACK.

        Blocks the calling thread; allowed in event handlers.

        Args:
            answer: The answer to the caller's offer, or an offer where the INVITE has none (then ``remote_description``
                is None); or a function that makes it of the offer, which later offers of the peer are answered by as
                well. None: ``offer_answer_negotiation`` is asked; without one the 200 has no body.
            headers: Further headers of the 200.

        Returns:
            The ACK.

        Raises:
            OperationTimeoutException: No ACK came; the session has ended.
            OperationFailureException: The caller took the call back, or the session was ended, at the same time.
            RealTimeInvalidOperationException: It is not an incoming call that is still undecided.

        RFC 3261 13.3.1.4.
        """
        return self.begin_accept(answer, headers).result()

    def begin_accept(
        self, answer: ContentDescription | Answerer | None = None, headers: Headers | None = None
    ) -> Operation[SipRequestData]:
        """:meth:`accept` without blocking."""
        self._check_incoming("accepted")
        pairs = [*self._endpoint._headers, *arguments.headers(headers)]
        content = self._negotiation.first_answer(answer)
        return self._begin(f"200 for {self._name}", self._core.accept, content, pairs)

    def send_provisional_response(
        self,
        code: int = 180,
        reason: str | None = None,
        headers: Headers | None = None,
        *,
        answer: ContentDescription | Answerer | None = None,
        early_media: bool = False,
    ) -> None:
        """Send a provisional response that may get lost. Does not wait for the network.

        Args:
            code: 101 to 199.
            answer: What it carries; the 200 repeats it.
            early_media: Ask ``offer_answer_negotiation``, or the function given before, for the answer.

        Raises:
            RealTimeInvalidOperationException: It is not an incoming call that is still undecided.
            ValueError, TypeError: An argument.
        """
        self._begin_provisional(code, reason, headers, answer, early_media, False)

    def send_reliable_provisional_response(
        self,
        code: int = 183,
        reason: str | None = None,
        headers: Headers | None = None,
        *,
        answer: ContentDescription | Answerer | None = None,
        early_media: bool = False,
    ) -> SipRequestData | None:
        """Send one that the caller acknowledges (PRACK), and wait for that; where one of both sides cannot do so
        (RFC 3262), it is sent all the same.

        Blocks the calling thread; allowed in event handlers.

        Returns:
            The PRACK; None where it was sent unreliably.

        Raises:
            OperationTimeoutException: No PRACK came.
            OperationFailureException: The call has ended meanwhile.
            RealTimeInvalidOperationException: It is not an incoming call that is still undecided.
        """
        return self.begin_send_reliable_provisional_response(
            code, reason, headers, answer=answer, early_media=early_media
        ).result()

    def begin_send_reliable_provisional_response(
        self,
        code: int = 183,
        reason: str | None = None,
        headers: Headers | None = None,
        *,
        answer: ContentDescription | Answerer | None = None,
        early_media: bool = False,
    ) -> Operation[SipRequestData | None]:
        """:meth:`send_reliable_provisional_response` without blocking."""
        return self._begin_provisional(code, reason, headers, answer, early_media, True)

    def _begin_provisional(
        self,
        code: int,
        reason: str | None,
        headers: Headers | None,
        answer: ContentDescription | Answerer | None,
        early_media: bool,
        reliable: bool,
    ) -> Operation[Any]:
        self._check_incoming(f"answered {int(code)}")
        arguments.status_code(code, 101, 199)
        arguments.reason_phrase(reason)
        pairs = [*self._endpoint._headers, *arguments.headers(headers)]
        negotiation = self._negotiation
        content: Content | None = None
        if early_media or answer is not None:
            content = negotiation.first_answer(answer, early=True)
            if content is not None:
                negotiation.early_answer = content
        return self._begin(
            f"{int(code)} for {self._name}",
            self._core.send_provisional,
            int(code),
            reason,
            pairs,
            content,
            reliable,
            convert=early_answer_sent(negotiation, content),
        )

    def terminate_with_rejection(
        self, code: int = 603, reason: str | None = None, headers: Headers | None = None
    ) -> None:
        """Refuse the call. Does not wait for the network.

        Args:
            code: 400 to 699.

        Raises:
            RealTimeInvalidOperationException: It is not an incoming call that is still undecided.
            ValueError, TypeError: An argument.
        """
        self._check_incoming("rejected")
        arguments.status_code(code, 400, 699)
        arguments.reason_phrase(reason)
        pairs = [*self._endpoint._headers, *arguments.headers(headers)]
        self._engine_call(self._core.reject, int(code), reason, pairs)

    def terminate_with_redirection(
        self,
        targets: RealTimeAddress | str | Iterable[RealTimeAddress | str],
        code: int = 302,
        headers: Headers | None = None,
    ) -> None:
        """Send the caller elsewhere (3xx). Does not wait for the network.

        Args:
            targets: Where to, the best first.
            code: 300 to 399.

        Raises:
            RealTimeInvalidOperationException: It is not an incoming call that is still undecided.
            ValueError, TypeError: An argument; the caller or this endpoint itself is no target.
        """
        self._check_incoming("redirected")
        arguments.status_code(code, 300, 399)
        given = [targets] if isinstance(targets, str | RealTimeAddress) else list(targets)
        addresses = [arguments.address(target) for target in given]
        if not addresses:
            raise ValueError("A redirection needs a target.")
        ours = (self._endpoint.uri, self._endpoint.endpoint_uri, self._endpoint.owner_uri)
        for address in addresses:
            if address == self._target or address in map(RealTimeAddress, ours):
                raise ValueError(f"{address} is the caller or this endpoint: the call would come back.")
        steps = 1000 // len(addresses)
        pairs = [*self._endpoint._headers, *arguments.headers(headers)]
        for place, address in enumerate(addresses):
            value = f"<{address.uri}>" + (f";q={1 - place * steps / 1000:.3f}" if len(addresses) > 1 else "")
            pairs.append(("Contact", value))
        self._engine_call(self._core.reject, int(code), None, pairs)

    def _check_incoming(self, what: str) -> None:
        if not self.is_incoming or self._state is not SignalingState.INCOMING:
            state = f"{self._state.name} ({self._reason.name})"
            raise RealTimeInvalidOperationException(
                f"{self._name[:1].upper()}{self._name[1:]} cannot be {what}: it is {state}."
            )
