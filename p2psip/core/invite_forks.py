"""What follows the 2xx to an INVITE of ours: the ACK, again for each copy, and BYE to forks that nobody wants.

It outlives the session by as long as the INVITE's transaction waits for copies (RFC 3261 13.2.2.4, RFC 6026 7.2), and so
holds nothing of the session.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from p2psip.core.dialog import Dialog, Pairs
from p2psip.core.usage import ClientUsage
from p2psip.errors import RealTimeException
from p2psip.message import Request, Response

if TYPE_CHECKING:
    from p2psip.core.directory import EndpointRecord
    from p2psip.core.engine import Engine
    from p2psip.core.request import ClientRequest
    from p2psip.core.session import Session

MAXIMUM_FORKS = 64
"""That are heard of in one call."""


class Forks(ClientUsage):
    """Whose 2xx to one INVITE were acknowledged, by the tag in To. When the session is over this stands in for it.

    Attributes:
        acks: The dialog that each 2xx has made, and the ACK.
        left: Early dialogs of forks that did not win.
        is_secure: What was called is ``sips:``, so no less will do wherever that is redirected to.
    """

    __slots__ = ("_engine", "_record", "acks", "is_secure", "left")

    def __init__(self, engine: Engine, record: EndpointRecord, is_secure: bool) -> None:
        self._engine = engine
        self._record = record
        self.is_secure = is_secure
        self.acks: dict[str | None, tuple[Dialog, Request]] = {}
        self.left: dict[str | None, Dialog] = {}

    @property
    def are_enough(self) -> bool:
        """So many have answered that it is a flood."""
        return len(self.acks) > MAXIMUM_FORKS

    def dialog(self, client_request: ClientRequest, response: Response) -> Dialog:
        """The one that the response makes."""
        return Dialog.of_response(
            self._engine, self._record, client_request.request, response, client_request.flow, self.is_secure
        )

    def acknowledge(self, now: float, tag: str | None, dialog: Dialog, ack: Request) -> None:
        """Send the ACK, and keep it for when the 2xx comes again."""
        self.acks[tag] = (dialog, ack)
        dialog.send_ack(now, ack)

    def acknowledge_again(self, now: float, tag: str | None) -> bool:
        """False when it was not acknowledged before."""
        known = self.acks.get(tag)
        if known is not None:
            known[0].send_ack(now, known[1])
        return known is not None

    def end(self, now: float, client_request: ClientRequest, response: Response, session: Session | None) -> None:
        """Acknowledge the 2xx of a fork that nobody wants, and end it; the session, if any, waits for that."""
        tag = response.to_tag
        dialog = self.dialog(client_request, response)
        early = self.left.get(tag)
        if early is not None:  # PRACK and UPDATE have had their numbers
            dialog.local_sequence = early.local_sequence
        self.acknowledge(now, tag, dialog, dialog.create_ack(client_request.request))
        Farewell(session, dialog).send(now)

    def responded(self, now: float, client_request: ClientRequest, response: Response) -> None:
        """The session is over."""
        if not 200 <= response.status_code < 300 or self.acknowledge_again(now, response.to_tag):
            return
        if not self.are_enough:
            self.end(now, client_request, response, None)


class Acknowledged(ClientUsage):
    """What is left of a re-INVITE whose 2xx has come."""

    __slots__ = ("_ack", "_dialog")

    def __init__(self, dialog: Dialog, ack: Request) -> None:
        self._dialog = dialog
        self._ack = ack

    def responded(self, now: float, client_request: ClientRequest, response: Response) -> None:
        """It has come again."""
        if 200 <= response.status_code < 300:
            self._dialog.send_ack(now, self._ack)


class Farewell(ClientUsage):
    """A BYE, to a session that was up, or to a call that was answered although nobody wants it.

    Whatever becomes of it, the session is over (RFC 3261 15.1.1).
    """

    __slots__ = ("_dialog", "_session")

    def __init__(self, session: Session | None, dialog: Dialog) -> None:
        self._session = session
        self._dialog = dialog

    def send(self, now: float, headers: Pairs = ()) -> None:
        self._dialog.send(now, self._dialog.create_request("BYE", headers), self)

    def responded(self, now: float, client_request: ClientRequest, response: Response) -> None:
        if response.status_code >= 200 and self._session is not None:
            self._session.said_farewell()

    def failed(self, now: float, client_request: ClientRequest, error: RealTimeException) -> None:
        if self._session is not None:
            self._session.said_farewell()
