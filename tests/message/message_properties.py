"""What holds for the codec whatever it is given: used by the tests and by the fuzz targets in tools/fuzz.

Each function takes anything, and raises AssertionError, or lets an exception out that is not documented, where the
codec is wrong.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from p2psip.errors import MessageParsingException
from p2psip.message import (
    CSeq,
    Headers,
    Limits,
    Malformed,
    NameAddr,
    Ping,
    Pong,
    Request,
    Response,
    SipUri,
    StreamFramer,
    Via,
    create_ack,
    create_cancel,
    create_response,
    normalise_escapes,
    parse_field,
    parse_message,
    parse_uri,
    unescape,
)
from p2psip.message.fields import _PARSERS

BOUNDLESS = Limits(start_line=2**24, header=2**24, head=2**24, headers=2**24, values=2**24, body=2**24)
"""What is written by the library may be longer than what it takes: a line more, or one that was folded."""

Item = Request | Response | Malformed | Ping | Pong

FIELDS = tuple(sorted(_PARSERS))
"""The keys of all header fields that have a grammar here."""

VIEWS = (
    *("top_via", "top_branch", "has_one_via", "via", "from_", "to", "from_tag", "to_tag", "contact", "route"),
    *("record_route", "call_id", "cseq", "max_forwards", "expires", "content_type", "content_length"),
    *("request_uri", "start_line", "body"),
)


# ---------------------------------------------------------------------- one message


def look_at(message: Request | Response) -> None:
    """Every view and every field, in which nothing but MessageParsingException may be found."""
    repr(message)
    with contextlib.suppress(MessageParsingException):
        message.validate()
    for view in VIEWS:
        with contextlib.suppress(MessageParsingException):
            str(getattr(message, view, None))
    for name, value in message.headers:
        with contextlib.suppress(MessageParsingException):
            str(parse_field(name, value))
        with contextlib.suppress(MessageParsingException):
            message.headers.get_all(name)
    check_shortcuts(message)


def check_shortcuts(message: Request | Response) -> None:
    """The views that look at no more than they need say the same as those that look at everything."""
    with contextlib.suppress(MessageParsingException):
        assert message.top_branch == message.via[0].branch
        assert str(message.top_via) == str(message.via[0])
        assert message.has_one_via == (len(message.via) == 1 and message.headers.count("Via") == 1)
    for tag, key in (("from_tag", "From"), ("to_tag", "To")):
        with contextlib.suppress(MessageParsingException):
            assert getattr(message, tag) == NameAddr.parse(message.headers.get(key) or "").params.get("tag")


def check_written(message: Request | Response) -> None:
    """What was parsed and is written is the same; so is what is made of its parts."""
    written = message.to_bytes()
    read = parse_message(written, BOUNDLESS)
    assert same(read, message)
    assert read.to_bytes() == written
    message.headers._changed = True  # from here on the lines count, and not the octets
    rewritten = message.to_bytes()
    again = parse_message(rewritten, BOUNDLESS)
    assert again.start_line == message.start_line
    assert again.body == message.body
    assert list(again.headers)[:-1] == without_length(message.headers)
    framer = StreamFramer(BOUNDLESS)
    (framed,) = framer.feed(rewritten)
    assert same(framed, again)
    assert not framer.in_message


def without_length(headers: Headers) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers if name.lower() not in ("content-length", "l")]


def same(one: object, other: object) -> bool:
    """The same message, or both malformed in the same octets."""
    return type(one) is type(other) and facts(one) == facts(other)


def facts(item: object) -> tuple[object, ...]:
    if isinstance(item, Malformed):
        return (item.data, str(item.error), item.error.status_code, answer_of(item.error))
    assert isinstance(item, Request | Response)
    return (item.start_line, list(item.headers), item.body, item.to_bytes())


def answer_of(error: MessageParsingException) -> bytes | None:
    return None if error.answer is None else error.answer.to_bytes()


def check_error(error: MessageParsingException) -> None:
    """It says something, and the answer that it brings can be sent."""
    assert str(error)
    if error.answer is not None:
        parse_message(error.answer.to_bytes(), BOUNDLESS).validate()


def check_answers(request: Request) -> None:
    """What is made of a request can be read, and bears what it has to."""
    for code in (100, 400):
        answer = create_response(request, code, to_tag=None)
        assert list(parse_message(answer.to_bytes(), BOUNDLESS).headers)[:-1] == list(answer.headers)
        with contextlib.suppress(MessageParsingException):
            parse_message(create_cancel(request).to_bytes(), BOUNDLESS)
            parse_message(create_ack(request, answer).to_bytes(), BOUNDLESS)
    try:
        request.validate()
    except MessageParsingException:
        return
    answer = create_response(request, 200, to_tag="ours")
    read = parse_message(answer.to_bytes(), BOUNDLESS)
    read.validate()
    assert read.to_tag == (request.to_tag or "ours")
    assert (read.from_tag, read.call_id, read.cseq) == (request.from_tag, request.call_id, request.cseq)
    assert list(map(str, read.via)) == list(map(str, request.via))


def check_datagram(data: bytes) -> None:
    """One message as a datagram carries it: parsed, looked at, written, answered."""
    try:
        message = parse_message(data)
    except MessageParsingException as error:
        check_error(error)
        return
    look_at(message)
    if isinstance(message, Request):
        check_answers(message)
    check_written(message)


# ---------------------------------------------------------------------- streams


class Framed:
    """What comes out of a stream that is cut into these pieces."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.items: list[Item] = []
        self.error: MessageParsingException | None = None
        self.framer = framer = StreamFramer()
        for piece in pieces:
            try:
                self.items += framer.feed(piece)
            except MessageParsingException as error:
                assert error is framer.error
            if framer.error is not None:
                self.error = framer.error
                break
        # When framing is lost nobody asks what is left.
        self.left = None if self.error is not None else (framer.buffered, framer.in_message)

    def facts(self) -> tuple[object, ...]:
        error = self.error and (str(self.error), self.error.status_code, answer_of(self.error))
        return (self.keep_alives(), self.left, error)

    def keep_alives(self) -> list[object]:
        """The items, a CRLF and then another one as what they are together (see ``StreamFramer.feed``)."""
        found: list[object] = []
        for item in self.items:
            if isinstance(item, Ping) and found and found[-1] == "PONG":
                found.pop()
            found.append(repr(item) if isinstance(item, Ping | Pong) else facts(item))
        return found


def cut_at(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    """The pieces between these places."""
    start = 0
    for end in [*sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]:
        yield data[start:end]
        start = end


def check_stream(data: bytes, cuts: list[int]) -> list[Item]:
    """How a stream is cut makes no difference; each message in it is what it is as a datagram."""
    whole = Framed(iter([data]))
    pieces = Framed(cut_at(data, cuts))
    assert pieces.facts() == whole.facts()
    for item in whole.items:
        if isinstance(item, Malformed):
            check_error(item.error)
            assert is_refused(item.data), item
        elif isinstance(item, Request | Response):
            assert same(parse_message(item.to_bytes()), item)
    if whole.error is not None:
        check_error(whole.error)
    return whole.items


def is_refused(data: bytes) -> bool:
    try:
        parse_message(data)
    except MessageParsingException:
        return True
    return False


# ---------------------------------------------------------------------- values


def check_uri(text: str) -> None:
    """A URI that is read is written as it was, and equals what is made of its parts."""
    unescape(text)
    normalise_escapes(text)
    try:
        uri = parse_uri(text)
    except MessageParsingException as error:
        check_error(error)
        return
    assert str(uri) == text
    if not isinstance(uri, SipUri):
        return
    parts = SipUri(
        uri.scheme,
        uri.user,
        uri.host,
        uri.port,
        password=uri.password,
        parameters=uri.parameters,
        headers=uri.headers,
    )
    assert uri == parts
    assert hash(uri) == hash(parts)
    assert parse_uri(str(parts)) == uri
    assert uri == uri.replace()
    repr(uri)


def check_name_addr(text: str) -> None:
    for brackets in (False, True):
        try:
            address = NameAddr.parse(text, brackets=brackets)
        except MessageParsingException as error:
            check_error(error)
            continue
        assert NameAddr.parse(str(address), brackets=brackets) == address
        assert str(NameAddr.parse(str(address))) == str(address)
        repr(address)


def check_via(text: str) -> None:
    try:
        via = Via.parse(text)
    except MessageParsingException as error:
        check_error(error)
        return
    assert Via.parse(str(via)) == via
    assert str(Via.parse(str(via))) == str(via)
    repr(via)


def check_field(name: str, text: str) -> None:
    """One field by its grammar, and what is written of its value."""
    try:
        value = parse_field(name, text)
    except MessageParsingException as error:
        check_error(error)
        return
    repr(value)
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, CSeq):
            assert CSeq.parse(str(each)) == each
        elif isinstance(each, NameAddr):
            check_name_addr(str(each))
        elif isinstance(each, Via):
            check_via(str(each))


def check_made(method: str, uri: str, reason: str, headers: list[tuple[str, str]], body: bytes) -> None:
    """What an application may say can be read as it was meant; what it may not say is a ValueError at once."""
    made: list[Request | Response] = []
    with contextlib.suppress(ValueError):
        made.append(Request(method, uri, headers, body))
    with contextlib.suppress(ValueError):
        made.append(Response(200, reason, headers, body))
    for message in made:
        written = message.to_bytes()
        (framed,) = StreamFramer(BOUNDLESS).feed(written)
        if isinstance(framed, Malformed):
            # Of control characters only those are refused at once that could end a line.
            assert "control character" in str(framed.error), framed
            continue
        assert isinstance(framed, type(message))
        assert (framed.start_line, framed.body) == (message.start_line, body)
        expected = [(name, value.strip(" \t")) for name, value in without_length(message.headers)]
        assert list(framed.headers)[:-1] == expected
