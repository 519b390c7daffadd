"""A program that uses the whole public API; checked by mypy --strict, never run."""

from __future__ import annotations

import concurrent.futures
from pathlib import Path

import p2psip
from p2psip import (
    CertificateStore,
    CollectionChangedEventArgs,
    ConnectionAuthorizationRequestedEventArgs,
    ConnectionContext,
    ConnectionPool,
    ContentDescription,
    EndpointState,
    EndpointStateChangedEventArgs,
    ErrorEventArgs,
    IncomingConnectionAddedEventArgs,
    IPAddress,
    IPEndPoint,
    ManagerSettings,
    MessageReceivedEventArgs,
    MessageType,
    Operation,
    OperationFailureReason,
    RealTimeAddress,
    RealTimeConnection,
    RealTimeConnectionManager,
    RealTimeEndpoint,
    RealTimeServerConnectionManager,
    RealTimeServerTcpConnectionManager,
    RealTimeServerTlsConnectionManager,
    ResponseCode,
    SendMessageOptions,
    SignalingHeader,
    SipPeerToPeerEndpoint,
    SipPeerToPeerEndpointSettings,
    SipResponseData,
    SipTransportType,
    SipUri,
    TlsFailureReason,
    TraceEventArgs,
    UnhandledExceptionEventArgs,
)


def on_message(sender: RealTimeEndpoint, args: MessageReceivedEventArgs) -> None:
    kind: MessageType | None = args.message_type
    text: str | None = args.text_body
    sender_uri: str = args.participant.uri
    allowed: bool = args.is_sender_authenticated and args.has_text_body
    identity: str | None = args.asserted_identity or args.authenticated_user
    connection: RealTimeConnection = args.connection
    print(kind, text, sender_uri, allowed, identity, connection.tls_version, args.request_data.header("Subject"))
    args.disable_automatic_response = True
    args.send_response(ResponseCode.ACCEPTED, "Taken", "text/plain", b"ok", [("X-A", "b"), SignalingHeader("X-C", "d")])


def on_state(sender: RealTimeEndpoint, args: EndpointStateChangedEventArgs) -> None:
    state: EndpointState = args.state
    print(sender.owner_uri, args.previous_state, state, args.reason)


def on_connection(sender: RealTimeServerConnectionManager, args: IncomingConnectionAddedEventArgs) -> None:
    certificate: bytes | None = args.remote_certificate
    print(args.item.remote_endpoint.port, args.matching_domain_name, certificate)


def on_removed(sender: RealTimeServerConnectionManager, args: CollectionChangedEventArgs[RealTimeConnection]) -> None:
    print(args.item.is_connected)


def on_pool(sender: RealTimeConnectionManager, args: CollectionChangedEventArgs[ConnectionPool]) -> None:
    print(args.item.host_name, len(args.item))


def on_error(sender: RealTimeServerConnectionManager, args: ErrorEventArgs) -> None:
    if isinstance(args.exception, p2psip.TlsFailureException):
        reason: TlsFailureReason = args.exception.failure_reason
        print(reason, args.exception.error_code, args.exception.remote_endpoint)


def on_authorization(sender: RealTimeServerConnectionManager, args: ConnectionAuthorizationRequestedEventArgs) -> None:
    args.delay_authorization()
    if "contoso.com" in args.connection.remote_identities:
        args.allow()
    else:
        args.deny()


def on_trace(sender: RealTimeConnectionManager, args: TraceEventArgs) -> None:
    print(args.direction, args.time, args.start_line, len(args.data))


def on_unhandled(sender: RealTimeConnectionManager, args: UnhandledExceptionEventArgs) -> None:
    print(args.sender, args.handler, args.exception)


def tls() -> RealTimeServerTlsConnectionManager:
    store = CertificateStore.default()
    manager = RealTimeServerTlsConnectionManager(
        "Contoso Issuing CA",
        "5f:3a:00:c1",
        local_host="alice.contoso.com",
        certificate_store=store,
        trusted_roots=Path("roots.pem"),
        revocation="strict",
        settings=ManagerSettings(idle_timeout=300),
    )
    manager.need_mutual_tls = True
    manager.allowed_domains.add("contoso.com")
    manager.allowed_domains = [".contoso.com"]
    manager.set_local_certificate("Contoso Issuing CA", 12345)
    manager.reload_certificates()
    from_files = RealTimeServerTlsConnectionManager.from_files("a.pem", "a.key", password="x", trusted_roots="system")
    from_files.dispose()
    return manager


def on_session(sender: RealTimeEndpoint, args: p2psip.SessionReceivedEventArgs) -> None:
    session: p2psip.SignalingSession = args.session
    session.state_changed += on_session_state
    session.send_provisional_response(180)
    prack: p2psip.SipRequestData | None = session.send_reliable_provisional_response(183, early_media=True)
    offer: ContentDescription | None = args.media_description
    print(args.is_sender_authenticated, args.authenticated_user, args.asserted_identity)
    if prack is None and offer is None:
        session.terminate_with_redirection([RealTimeAddress("sip:carol@contoso.com")], 301)
    elif args.remote_participant.is_update_supported:
        session.terminate_with_rejection(486, "Busy", [("Retry-After", "60")])
    else:
        ack: p2psip.SipRequestData = session.accept(lambda offer: offer)
        print(ack.body, session.replaced_session, session.joined_session)


def on_session_state(sender: p2psip.SignalingSession, args: p2psip.SignalingStateChangedEventArgs) -> None:
    state: p2psip.SignalingState = args.state
    reason: p2psip.SignalingTransitionReason = args.reason
    print(sender.call_id, state, reason, args.message_data)


def on_redirecting(sender: p2psip.SignalingSession, args: p2psip.RedirectingEventArgs) -> None:
    target: str | None = args.current_target
    args.action = p2psip.RedirectAction.TRY_THIS if target else p2psip.RedirectAction.TRY_NONE
    args.headers.append(("Subject", "again"))


def sessions(endpoint: RealTimeEndpoint, negotiation: p2psip.IOfferAnswer) -> None:
    endpoint.session_received += on_session
    offer = ContentDescription("application/sdp", "v=0")
    settings = p2psip.SignalingSessionSettings(maximum_redirects=2, ring_limit=30)
    with p2psip.SignalingSession(endpoint, "sip:bob@contoso.com", settings=settings) as session:
        session.redirecting += on_redirecting
        session.reliable_provisional_response_policy = p2psip.ExtensionFeatureSupport.REQUIRED
        session.desired_session_timer_interval = 600
        answer: SipResponseData = session.establish(offer, timeout=20)
        changed: SipResponseData = session.renegotiate(offer)
        info: SipResponseData = session.send_message(MessageType.INFO, "text/plain", "1")
        tag: str | None = session.to_tag
        print(answer, changed, info, tag, session.remote_participant.contact_uri, session.route_set_status)
        ended: Operation[None] = session.begin_terminate()
        ended.result()
    session = p2psip.SignalingSession(endpoint, RealTimeAddress("sip:carol@contoso.com"))
    session.offer_answer_negotiation = negotiation
    placed: Operation[SipResponseData] = session.begin_establish()
    placed.cancel()


def main() -> None:
    with tls() as manager:
        manager.incoming_connection_added += on_connection
        manager.incoming_connection_removed += on_removed
        manager.connection_pool_added += on_pool
        manager.connection_pool_removed += on_pool
        manager.incoming_tls_negotiation_failed += on_error
        manager.listening_aborted += on_error
        manager.connection_authorization_requested += on_authorization
        manager.trace += on_trace
        manager.unhandled_exception += on_unhandled
        endpoint = SipPeerToPeerEndpoint(
            "sip:alice@contoso.com",
            manager,
            SipTransportType.TLS,
            "proxy.contoso.com",
            5061,
            headers=[("X-Site", "1")],
            settings=SipPeerToPeerEndpointSettings(endpoint_id="a1", display_name="Alice"),
        )
        endpoint.proxy_certificate_subject = "pool.contoso.com"
        endpoint.sender_policy = p2psip.SenderPolicy.CERTIFIED
        endpoint.trusted_peers.add("pool.contoso.com")
        endpoint.trusted_peers = [".contoso.com"]
        endpoint.message_received += on_message
        endpoint.state_changed += on_state
        endpoint.message_received -= on_message
        manager.default_endpoint = endpoint
        manager.start_listening(IPEndPoint(IPAddress.ANY, 0))
        starting: Operation[None] = manager.begin_stop_listening()
        starting.result(5)
        manager.start_listening(("127.0.0.1", 5061))
        port: int = manager.listening_port
        where: tuple[IPEndPoint, ...] = manager.listening_addresses
        print(port, where, manager.is_listening, manager.local_host, manager.endpoints, manager.connection_pools())

        answer: SipResponseData = endpoint.send_message(MessageType.MESSAGE, "sip:bob@contoso.com", body="hello")
        print(answer.response_code, answer.response_text, answer.to.tag, answer.signaling_headers[0].value)
        options = SendMessageOptions(
            connection_context=ConnectionContext("10.0.0.1", 5061), tls_target_name="bob.contoso.com"
        )
        operation = endpoint.begin_send_message(
            "PING", RealTimeAddress("sip:bob@contoso.com", "e1"), "text/plain", b"x", options=options, timeout=5
        )
        operation.add_done_callback(lambda done: print(done.result().response_code))
        concurrent.futures.wait([operation])
        with endpoint.message_received.expect(timeout=5) as got:
            pass
        text: str | None = got.args.text_body
        print(text)
        endpoint.allow_method("PING")
        endpoint.add_sip_extension("gruu")
        endpoint.add_feature_parameter("audio")
        drained: bool = endpoint.drain(timeout=1)
        print(drained, endpoint.uri, endpoint.endpoint_uri, endpoint.id, endpoint.gruu, endpoint.user_agent)
        endpoint.terminate()
    try:
        with RealTimeServerTcpConnectionManager() as tcp, SipPeerToPeerEndpoint("sip:bob@contoso.com", tcp) as bob:
            bob.send_message(MessageType.OPTIONS, "sip:alice@contoso.com")
    except p2psip.FailureResponseException as error:
        print(error.response_data.response_code, error.warnings, error.diagnostics)
    except p2psip.OperationFailureException as error:
        print(error.failure_reason is OperationFailureReason.THROTTLED)
    except p2psip.RealTimeException as error:
        print(error)
    shared = RealTimeEndpoint.default_peer_to_peer_endpoint_connection_manager
    if shared is not None:
        shared.dispose()
    body = ContentDescription("application/sdp", "v=0")
    uri = SipUri.parse("sip:bob@contoso.com")
    print(body.text_body, uri.user, uri.host)
