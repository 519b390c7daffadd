"""SIP messages: text and values, without state, time or I/O."""

from p2psip.message.builders import create_ack, create_cancel, create_response, reason_phrase, stateless_tag
from p2psip.message.fields import (
    Credentials,
    Date,
    MediaType,
    Parameterised,
    RAck,
    RetryAfter,
    Timestamp,
    WarningValue,
    parse_field,
)
from p2psip.message.framing import PING, PONG, Ping, Pong, StreamFramer
from p2psip.message.grammar import is_token, quote_display_name, quoted, split_list, unquote
from p2psip.message.headers import Headers
from p2psip.message.message import Malformed, Request, Response
from p2psip.message.names import canonical_name, field_key
from p2psip.message.parser import Limits, parse_message
from p2psip.message.uri import SipUri, normalise_escapes, parse_uri, unescape
from p2psip.message.values import CSeq, NameAddr, Via

__all__ = [
    "PING",
    "PONG",
    "CSeq",
    "Credentials",
    "Date",
    "Headers",
    "Limits",
    "Malformed",
    "MediaType",
    "NameAddr",
    "Parameterised",
    "Ping",
    "Pong",
    "RAck",
    "Request",
    "Response",
    "RetryAfter",
    "SipUri",
    "StreamFramer",
    "Timestamp",
    "Via",
    "WarningValue",
    "canonical_name",
    "create_ack",
    "create_cancel",
    "create_response",
    "field_key",
    "is_token",
    "normalise_escapes",
    "parse_field",
    "parse_message",
    "parse_uri",
    "quote_display_name",
    "quoted",
    "reason_phrase",
    "split_list",
    "stateless_tag",
    "unescape",
    "unquote",
]
