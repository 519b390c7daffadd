"""The enumerations of the public API, with UCMA's numbers."""

from __future__ import annotations

import enum


class SipTransportType(enum.IntEnum):
    """How messages travel. There is no UDP."""

    NONE = 0
    TCP = 1
    TLS = 2


class MessageType(enum.IntEnum):
    """The requests that travel outside of dialogs. The name of a member is its SIP method."""

    MESSAGE = 0
    INFO = 1
    OPTIONS = 2
    BENOTIFY = 3
    SERVICE = 4
    NOTIFY = 5


class EndpointState(enum.IntEnum):
    """What an endpoint can do. A DISCONNECTED one that is not terminated can send, but takes nothing in."""

    CONNECTING = 0
    CONNECTED = 1
    DISCONNECTING = 2
    DISCONNECTED = 3


class EndpointTransitionReason(enum.IntEnum):
    """Why an endpoint changed its state."""

    NONE = 0
    TERMINATED_LOCALLY = 1
    NO_LISTENING_ADDRESSES = 2
    UNABLE_TO_LISTEN = 3
    TOO_MANY_ACTIVE_ENDPOINT = 4
    USER_CHANGED = 5
    USER_MOVED = 6
    TIMEOUT = 7
    UNAUTHORIZED_ACCESS = 8
    CREDENTIALS = 9
    AUTHENTICATION = 10
    CONNECTION_FAILURE = 11
    LISTENING = 12
    STOPPED_LISTENING = 13


class SenderPolicy(enum.IntEnum):
    """Whose requests an endpoint takes, outside of sessions and subscriptions."""

    ANY = 0
    """Everybody's who may connect; handlers look at the sender themselves."""
    CERTIFIED = 1
    """Only theirs who have proved that From is not made up: by a certificate that carries its domain, by a digest, or by
    what a trusted peer asserts."""


class SignalingState(enum.IntEnum):
    """Where a session is."""

    IDLE = 0
    CONNECTING = 1
    ALERTED = 2
    CONNECTED = 3
    DISCONNECTED = 4
    INCOMING = 5
    REDIRECTING = 6


class SignalingTransitionReason(enum.IntEnum):
    """Why a session changed its state."""

    NONE = 0
    DECLINED = 1
    CANCELED = 2
    TERMINATED_LOCALLY = 3
    TERMINATED_REMOTELY = 4
    BUSY = 5
    TEMPORARILY_UNAVAILABLE = 6
    NOT_ACCEPTABLE = 7
    NOT_ACCEPTABLE_MEDIA = 8
    TIMEOUT = 9
    UNREACHABLE = 10
    SESSION_TIMER_EXPIRED = 11
    PROVISION_RESPONSE_RECEIVED = 12
    SESSION_DOES_NOT_EXIST = 13
    RECOVERY_FAILED = 14


class RouteSetStatus(enum.IntEnum):
    """Whether a session has a connection to its peer. While it is recovering the next request looks for a new one."""

    HEALTHY = 0
    RECOVERING = 1


class ExtensionFeatureSupport(enum.IntEnum):
    """What is made of an extension of SIP."""

    UNSUPPORTED = 0
    SUPPORTED = 1
    REQUIRED = 2


class RedirectAction(enum.IntEnum):
    """What a handler of ``redirecting`` wants to be done."""

    TRY_ALL = 0
    """Follow this target and, where it fails, the next ones without asking."""
    TRY_NONE = 1
    """Follow none: the session ends with the response that redirects it."""
    TRY_THIS = 2
    """Follow this target; ask again where it fails."""
    SKIP_THIS = 3
    """Not this one; ask again for the next."""


class ReferState(enum.IntEnum):
    """Where a transfer is: the first five are about the request, the others about what the peer reports."""

    IDLE = 0
    REFER_REQUESTED = 1
    REFER_ACCEPTED = 2
    REFER_REJECTED = 3
    REFER_FAILED = 4
    TRYING = 5
    ALERTED = 6
    SUCCEEDED = 7
    FAILED = 8
    REDIRECTED = 9


class SubscriptionSignalingState(enum.IntEnum):
    """Where a subscription of ours is."""

    IDLE = 0
    SUBSCRIBING = 1
    SUBSCRIBED = 2
    WAITING_FOR_RETRY = 3
    TERMINATING = 4
    TERMINATED = 5


class ResponseCode(enum.IntEnum):
    """The status codes of SIP, under UCMA's names where it has one."""

    TRYING = 100
    PROGRESS_REPORT = 101
    RINGING = 180
    FORWARDED = 181
    QUEUED = 182
    SESSION_PROGRESS = 183
    SUCCESS = 200
    ACCEPTED = 202
    MULTIPLE_CHOICES = 300
    MOVED_PERMANENTLY = 301
    MOVED_TEMPORARILY = 302
    SEE_OTHER = 303
    USE_PROXY = 305
    ALTERNATIVE_SERVICE = 380
    BAD_REQUEST = 400
    UNAUTHORIZED = 401
    PAYMENT_REQUIRED = 402
    FORBIDDEN = 403
    NOT_FOUND = 404
    METHOD_NOT_ALLOWED = 405
    NOT_ACCEPTABLE = 406
    PROXY_AUTHENTICATION_REQUIRED = 407
    REQUEST_TIMEOUT = 408
    GONE = 410
    CONDITIONAL_REQUEST_FAILED = 412
    REQUEST_TOO_LARGE = 413
    REQUEST_URI_TOO_LONG = 414
    UNSUPPORTED_MEDIA_TYPE = 415
    UNSUPPORTED_URI_SCHEME = 416
    BAD_EXTENSION = 420
    EXTENSION_REQUIRED = 421
    SESSION_TIMER_TOO_SMALL = 422
    INTERVAL_TOO_BRIEF = 423
    FLOW_FAILED = 430
    TEMPORARILY_UNAVAILABLE = 480
    BAD_CALL_LEG = 481
    LOOP_DETECTED = 482
    TOO_MANY_HOPS = 483
    ADDRESS_INCOMPLETE = 484
    AMBIGUOUS = 485
    BUSY_HERE = 486
    REQUEST_TERMINATED = 487
    NOT_ACCEPTABLE_HERE = 488
    BAD_EVENT = 489
    REQUEST_PENDING = 491
    UNDECIPHERABLE = 493
    SERVER_INTERNAL_ERROR = 500
    NOT_IMPLEMENTED = 501
    BAD_GATEWAY = 502
    SERVICE_UNAVAILABLE = 503
    SERVER_TIMEOUT = 504
    VERSION_NOT_SUPPORTED = 505
    MESSAGE_TOO_LARGE = 513
    BUSY_EVERYWHERE = 600
    DECLINE_EVERYWHERE = 603
    DOES_NOT_EXIST_ANYWHERE = 604
    NOT_ACCEPTABLE_ANYWHERE = 606

    @staticmethod
    def is_provisional_response(code: int) -> bool:
        """100 to 199."""
        return 100 <= code <= 199

    @staticmethod
    def is_successful_response(code: int) -> bool:
        """200 to 299."""
        return 200 <= code <= 299

    @staticmethod
    def is_redirect_response(code: int) -> bool:
        """300 to 399."""
        return 300 <= code <= 399

    @staticmethod
    def is_failure_response(code: int) -> bool:
        """400 to 699."""
        return 400 <= code <= 699
