"""SIP peer-to-peer endpoints over mutual TLS: UCMA's signaling model for Python.

Everything that applications need is importable from here. The codec is ``p2psip.message``, what helps tests is
``p2psip.testing``.
"""

from __future__ import annotations

from p2psip._version import __version__
from p2psip.capture_file import CaptureFile
from p2psip.config import ManagerSettings
from p2psip.connections import (
    CollectionChangedEventArgs,
    ConnectionAuthorizationRequestedEventArgs,
    ConnectionPool,
    ErrorEventArgs,
    IncomingConnectionAddedEventArgs,
    RealTimeConnection,
    TraceEventArgs,
    UnhandledExceptionEventArgs,
)
from p2psip.credentials import Credentials
from p2psip.endpoint import (
    EndpointStateChangedEventArgs,
    RealTimeEndpoint,
    SipPeerToPeerEndpointSettings,
)
from p2psip.enums import (
    EndpointState,
    EndpointTransitionReason,
    ExtensionFeatureSupport,
    MessageType,
    RedirectAction,
    ReferState,
    ResponseCode,
    RouteSetStatus,
    SenderPolicy,
    SignalingState,
    SignalingTransitionReason,
    SipTransportType,
    SubscriptionSignalingState,
)
from p2psip.errors import (
    AuthenticationException,
    AuthenticationFailureReason,
    ConnectionFailureException,
    FailureRequestException,
    FailureResponseException,
    InvalidOperationReason,
    MessageParsingException,
    OperationFailureException,
    OperationFailureReason,
    OperationTimeoutException,
    ParsingFailureReason,
    PublishSubscribeException,
    RealTimeException,
    RealTimeInvalidOperationException,
    ServerPolicyException,
    TlsFailureException,
    TlsFailureReason,
)
from p2psip.managers import (
    RealTimeConnectionManager,
    RealTimeServerConnectionManager,
    RealTimeServerTcpConnectionManager,
)
from p2psip.message import NameAddr, SipUri
from p2psip.messaging import MessageReceivedEventArgs
from p2psip.net.certificates import CertificateStore
from p2psip.offers import IOfferAnswer, OfferInInviteResponseEventArgs, OfferInReInviteEventArgs
from p2psip.peer_to_peer import SipPeerToPeerEndpoint
from p2psip.publication import PublicationChangedEventArgs, SipPublication
from p2psip.referral import ReferStateChangedEventArgs, ReferStatus
from p2psip.referral_incoming import ReferNotifier, ReferReceivedEventArgs
from p2psip.session import SignalingSession, SignalingSessionSettings
from p2psip.session_events import (
    InvitationAcceptedEventArgs,
    InvitationCompletedEventArgs,
    ProvisionalResponseReceivedEventArgs,
    RedirectingEventArgs,
    ReInviteReceivedEventArgs,
    RenegotiationToRefreshNeededEventArgs,
    RequestOrResponseReceivedEventArgs,
    RouteSetStatusChangedEventArgs,
    SessionReceivedEventArgs,
    SignalingParticipant,
    SignalingStateChangedEventArgs,
    TerminatedByRemoteEventArgs,
)
from p2psip.snapshots import (
    ConnectionSnapshot,
    DialogSnapshot,
    ListenerSnapshot,
    ManagerSnapshot,
    StrandSnapshot,
    TransactionSnapshot,
)
from p2psip.statistics import (
    ConnectionStatistics,
    HandlerStatistics,
    ManagerStatistics,
    MessageStatistics,
    QueueStatistics,
    TransactionStatistics,
)
from p2psip.subscription import IncomingSubscription, SipSubscription, SubscriptionReceivedEventArgs
from p2psip.subscription_events import (
    NotificationReceivedEventArgs,
    SubscriptionEndedEventArgs,
    SubscriptionRefreshedEventArgs,
    SubscriptionStateChangedEventArgs,
)
from p2psip.sync import Event, Operation
from p2psip.tls_manager import RealTimeServerTlsConnectionManager
from p2psip.trace_file import TraceFile
from p2psip.values import (
    ConnectionContext,
    ContentDescription,
    IPAddress,
    IPEndPoint,
    Participant,
    RealTimeAddress,
    SendMessageOptions,
    SignalingHeader,
    SipMessageData,
    SipRequestData,
    SipResponseData,
)

__all__ = [
    "AuthenticationException",
    "AuthenticationFailureReason",
    "CaptureFile",
    "CertificateStore",
    "CollectionChangedEventArgs",
    "ConnectionAuthorizationRequestedEventArgs",
    "ConnectionContext",
    "ConnectionFailureException",
    "ConnectionPool",
    "ConnectionSnapshot",
    "ConnectionStatistics",
    "ContentDescription",
    "Credentials",
    "DialogSnapshot",
    "EndpointState",
    "EndpointStateChangedEventArgs",
    "EndpointTransitionReason",
    "ErrorEventArgs",
    "Event",
    "ExtensionFeatureSupport",
    "FailureRequestException",
    "FailureResponseException",
    "HandlerStatistics",
    "IOfferAnswer",
    "IPAddress",
    "IPEndPoint",
    "IncomingConnectionAddedEventArgs",
    "IncomingSubscription",
    "InvalidOperationReason",
    "InvitationAcceptedEventArgs",
    "InvitationCompletedEventArgs",
    "ListenerSnapshot",
    "ManagerSettings",
    "ManagerSnapshot",
    "ManagerStatistics",
    "MessageParsingException",
    "MessageReceivedEventArgs",
    "MessageStatistics",
    "MessageType",
    "NameAddr",
    "NotificationReceivedEventArgs",
    "OfferInInviteResponseEventArgs",
    "OfferInReInviteEventArgs",
    "Operation",
    "OperationFailureException",
    "OperationFailureReason",
    "OperationTimeoutException",
    "ParsingFailureReason",
    "Participant",
    "ProvisionalResponseReceivedEventArgs",
    "PublicationChangedEventArgs",
    "PublishSubscribeException",
    "QueueStatistics",
    "ReInviteReceivedEventArgs",
    "RealTimeAddress",
    "RealTimeConnection",
    "RealTimeConnectionManager",
    "RealTimeEndpoint",
    "RealTimeException",
    "RealTimeInvalidOperationException",
    "RealTimeServerConnectionManager",
    "RealTimeServerTcpConnectionManager",
    "RealTimeServerTlsConnectionManager",
    "RedirectAction",
    "RedirectingEventArgs",
    "ReferNotifier",
    "ReferReceivedEventArgs",
    "ReferState",
    "ReferStateChangedEventArgs",
    "ReferStatus",
    "RenegotiationToRefreshNeededEventArgs",
    "RequestOrResponseReceivedEventArgs",
    "ResponseCode",
    "RouteSetStatus",
    "RouteSetStatusChangedEventArgs",
    "SendMessageOptions",
    "SenderPolicy",
    "ServerPolicyException",
    "SessionReceivedEventArgs",
    "SignalingHeader",
    "SignalingParticipant",
    "SignalingSession",
    "SignalingSessionSettings",
    "SignalingState",
    "SignalingStateChangedEventArgs",
    "SignalingTransitionReason",
    "SipMessageData",
    "SipPeerToPeerEndpoint",
    "SipPeerToPeerEndpointSettings",
    "SipPublication",
    "SipRequestData",
    "SipResponseData",
    "SipSubscription",
    "SipTransportType",
    "SipUri",
    "StrandSnapshot",
    "SubscriptionEndedEventArgs",
    "SubscriptionReceivedEventArgs",
    "SubscriptionRefreshedEventArgs",
    "SubscriptionSignalingState",
    "SubscriptionStateChangedEventArgs",
    "TerminatedByRemoteEventArgs",
    "TlsFailureException",
    "TlsFailureReason",
    "TraceEventArgs",
    "TraceFile",
    "TransactionSnapshot",
    "TransactionStatistics",
    "UnhandledExceptionEventArgs",
    "__version__",
]
