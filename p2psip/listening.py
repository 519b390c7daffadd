"""The part of a connection manager that listens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from p2psip import arguments
from p2psip.connections import ErrorEventArgs
from p2psip.enums import EndpointState, EndpointTransitionReason
from p2psip.errors import RealTimeInvalidOperationException
from p2psip.net.sockets import CAN_SHARE_PORTS
from p2psip.sync import Event, Operation
from p2psip.values import IPEndPoint

if TYPE_CHECKING:
    from p2psip.stack import Stack


class Listening:
    """Whether, where and since when a manager takes connections in. Usable from any thread."""

    _stack: Stack
    listening_aborted: Event[Any, Any]

    def _check_alive(self, what: str) -> None:
        raise NotImplementedError

    def _listening_changed(self, state: EndpointState, reason: EndpointTransitionReason) -> None:
        raise NotImplementedError

    def _raise(self, event: Event[Any, Any], args: object) -> None:
        raise NotImplementedError

    @property
    def is_listening(self) -> bool:
        """New connections are taken in."""
        return self._stack.network.listening_port != 0

    @property
    def listening_port(self) -> int:
        """The port listened on, the chosen one after port 0; 0 while not listening."""
        return self._stack.network.listening_port

    @property
    def listening_addresses(self) -> tuple[IPEndPoint, ...]:
        """What is listened on; empty while not listening."""
        return tuple(IPEndPoint(*address) for address in self._stack.network.listening_addresses)

    def start_listening(self, ip_endpoint: IPEndPoint | tuple[str, int], *, reuse_port: bool = False) -> None:
        """Take connections in. Blocks shortly; allowed in handlers.

        Args:
            ip_endpoint: Address and port. Port 0 means any free one; ``IPAddress.ANY`` means all addresses, IPv4 and
                IPv6, on one port.
            reuse_port: Several processes may listen on the port, each of which says so (SO_REUSEPORT); Linux gives each
                new connection to one of them. For what needs no other process: what follows within a session or
                subscription has to come over the connection that it began on.

        Raises:
            RealTimeInvalidOperationException: It listens already, or is disposed.
            ConnectionFailureException: The port is taken or not permitted, or the address is not this machine's.
            TlsFailureException: There is nothing to verify peers with (UNTRUSTED_REMOTE_CERTIFICATE).
            ValueError, TypeError: An argument; or this system cannot share ports.
        """
        self.begin_start_listening(ip_endpoint, reuse_port=reuse_port).result()

    def begin_start_listening(
        self, ip_endpoint: IPEndPoint | tuple[str, int], *, reuse_port: bool = False
    ) -> Operation[None]:
        """The same without blocking."""
        if reuse_port and not CAN_SHARE_PORTS:
            raise ValueError("This system cannot share a port between processes (SO_REUSEPORT): give each its own.")
        host, port = arguments.ip_endpoint(ip_endpoint)
        self._check_alive("listen")
        if self.is_listening:
            raise RealTimeInvalidOperationException(
                f"The connection manager listens already, on port {self.listening_port}: "
                "stop_listening() first, or use another manager."
            )
        operation: Operation[None] = Operation("start_listening", callbacks=self._stack.dispatcher.submit)
        self._stack.post_operation(operation, lambda: self._listen(host, port, reuse_port, operation))
        return operation

    def _listen(self, host: str, port: int, reuse_port: bool, operation: Operation[None]) -> None:
        if self.is_listening:
            raise RealTimeInvalidOperationException("Another thread made the connection manager listen meanwhile.")
        self._stack.network.listen(host, port, reuse_port)
        self._listening_changed(EndpointState.CONNECTED, EndpointTransitionReason.LISTENING)
        operation.complete(None)

    def stop_listening(self) -> None:
        """Refuse new connections; existing ones live on. Blocks shortly; allowed in handlers.

        Raises:
            RealTimeInvalidOperationException: It does not listen.
        """
        self.begin_stop_listening().result()

    def begin_stop_listening(self) -> Operation[None]:
        """The same without blocking."""
        self._check_alive("stop listening")
        if not self.is_listening:
            raise RealTimeInvalidOperationException("The connection manager does not listen.")
        operation: Operation[None] = Operation("stop_listening", callbacks=self._stack.dispatcher.submit)
        self._stack.post_operation(operation, lambda: self._stop_listening(operation))
        return operation

    def _stop_listening(self, operation: Operation[None]) -> None:
        if self.is_listening:
            self._stack.network.stop_listening()
            self._listening_changed(EndpointState.DISCONNECTED, EndpointTransitionReason.STOPPED_LISTENING)
            self._raise(self.listening_aborted, ErrorEventArgs(None))
        operation.complete(None)
