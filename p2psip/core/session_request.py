"""A request within a session, and who waits for its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from p2psip.core.usage import ClientUsage
from p2psip.errors import RealTimeException
from p2psip.message import Response

if TYPE_CHECKING:
    from p2psip.core.request import ClientRequest
    from p2psip.core.session import Session


class SessionRequest(ClientUsage):
    """One request within a session, and the operation that waits for its answer: to be ``is_patient`` is to wait as
    long as the protocol does, after which the peer counts as gone."""

    __slots__ = ("_is_patient", "_operation", "_session")

    def __init__(self, session: Session, operation: Any, is_patient: bool) -> None:
        self._session = session
        self._operation = operation
        self._is_patient = is_patient

    def responded(self, now: float, client_request: ClientRequest, response: Response) -> None:
        self._session.see(response)
        if response.status_code >= 200:
            session = self._session
            session.way_found(client_request.flow)
            session.forget_request(self)
            operation, self._operation = self._operation, None
            session.failed_by(now, response)
            session.complete(operation, response, None)

    def failed(self, now: float, client_request: ClientRequest, error: RealTimeException) -> None:
        session = self._session
        session.forget_request(self)
        operation, self._operation = self._operation, None
        if self._is_patient:
            session.unanswered(now, client_request, error)
        session.complete(operation, None, error)

    def overtaken(self) -> None:
        operation, self._operation = self._operation, None
        self._session.overtake(operation)
