"""What handlers are told of who sent a request."""

from __future__ import annotations

from p2psip.core.sender import Sender


class SenderEventArgs:
    """The part of event arguments that says who sent the request, as far as that is proved. Usable from any thread."""

    __slots__ = ()

    @property
    def _sender(self) -> Sender:
        raise NotImplementedError

    @property
    def is_sender_authenticated(self) -> bool:
        """The domain in From is one that the peer's verified certificate carries. Never over TCP, and not for what a
        proxy has passed on for others: then look at the other two."""
        return self._sender.is_certified

    @property
    def authenticated_user(self) -> str | None:
        """The user name that the sender has proved by a digest, where the endpoint demands that
        (:meth:`RealTimeEndpoint.require_digest`); else None. From may say something else."""
        return self._sender.user

    @property
    def asserted_identity(self) -> str | None:
        """The URI of the sender, as one of the endpoint's ``trusted_peers`` asserts it (P-Asserted-Identity, RFC 3325);
        a telephone number where it knows no SIP URI. None from all other peers, whatever they have written: that can be
        read in ``request_data`` only."""
        return self._sender.asserted_identity
