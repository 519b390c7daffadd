"""Run a conformance corpus against the codec and an endpoint:  python3 tools/corpus.py FOLDER

FOLDER holds manifest.json, messages/, streams/, streams.json and tables/ (tests/data/corpus is one). Prints how many
files and rows agree, family by family and table by table, and each disagreement with its name and what differs.
Ends with 1 when a disagreement is not one of DECLARED.
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from corpus_endpoint import check_endpoint
from corpus_facts import check_made_for, differences, facts_of, host_type, plain, plain_field, uri_parts

from p2psip.errors import MessageParsingException
from p2psip.message import (
    Malformed,
    NameAddr,
    Ping,
    Pong,
    Request,
    Response,
    SipUri,
    StreamFramer,
    canonical_name,
    field_key,
    parse_field,
    parse_message,
    parse_uri,
)
from p2psip.net.identity import Identities

_HEADERS_IN_URI = (
    "RFC 4475 3.1.2.11 and 3.1.2.13 let an element refuse it, and the corpus' own twin of it asks for that"
)

DECLARED: dict[str, str] = {
    "messages/interop/sofia-sip/test25.sip": _HEADERS_IN_URI,
    "messages/interop/sofia-sip/test33.sip": _HEADERS_IN_URI,
    "messages/protos/0847-sip-from-tag.dat": "a header field may have 8 KiB here",
}
"""Name of a file or row -> why the library is right and the corpus is not, or not for an endpoint."""

SEED = 3261
CHUNKINGS = 3
"""Random ways in which each stream is cut."""


class Finding(NamedTuple):
    """One file or row of one group: what differs, nothing if it agrees."""

    group: str
    name: str
    problems: list[str]


class Corpus:
    """A folder of the format that is described in its own README."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entries: list[dict[str, Any]] = self._json("manifest.json")["entries"]

    def _json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text(encoding="utf-8"))

    def messages(self) -> list[dict[str, Any]]:
        return [entry for entry in self.entries if entry["type"] == "message"]

    def streams(self) -> list[dict[str, Any]]:
        streams: list[dict[str, Any]] = self._json("streams.json")["streams"]
        return streams

    def rows(self, table: str) -> list[dict[str, Any]]:
        if not (self.folder / "tables" / f"{table}.json").exists():
            return []
        rows: list[dict[str, Any]] = self._json(f"tables/{table}.json")["rows"]
        return rows

    def octets(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()


# ---------------------------------------------------------------------- messages


class Verdict(NamedTuple):
    """What became of one datagram."""

    message: Request | Response | None
    error: MessageParsingException | None
    """From the parser, from ``validate()``, or from a view that was looked at."""


def read(data: bytes) -> Verdict:
    """Parse, validate, and look at all mandatory fields, Contact and Date."""
    try:
        message = parse_message(data)
    except MessageParsingException as error:
        return Verdict(None, error)
    try:
        message.validate()
        assert message.via and message.from_ and message.to and message.cseq and message.call_id
        assert message.contact is not None
        date = message.headers.get("Date")
        if date is not None:
            parse_field("Date", date)
    except MessageParsingException as error:
        return Verdict(message, error)
    return Verdict(message, None)


def check_messages(corpus: Corpus) -> Iterator[Finding]:
    for entry in corpus.messages():
        data = corpus.octets(entry["file"])
        problems = list(check_message(corpus, entry, data))
        yield Finding(entry["family"], entry["file"], problems)


def check_message(corpus: Corpus, entry: dict[str, Any], data: bytes) -> Iterator[str]:
    verdict = read(data)
    yield from check_verdict(entry, verdict)
    if verdict.message is not None:
        if not data.lstrip(b"\r\n").startswith(verdict.message.to_bytes()):
            yield "to_bytes() does not give back what was received"
        if entry["verdict"] == "valid" and "facts" in entry:
            yield from differences(entry["facts"], facts_of(verdict.message))
        if "check" in entry:
            yield from check_made_for(entry["check"], verdict.message)
        if entry.get("expect", {}).get("same_as_base"):
            base = parse_message(corpus.octets(entry["base_file"]))
            yield from differences(meaning(base), meaning(verdict.message))
    yield from check_framing(entry, data)


def check_verdict(entry: dict[str, Any], verdict: Verdict) -> Iterator[str]:
    parser, error = entry["parser"], verdict.error
    expected = entry.get("expected", {})
    # "must_accept" is about the parser: where a UAS may refuse the message, validate() may.
    refused_above = expected.get("uas") == "any" or (
        entry["verdict"] == "invalid" and expected.get("uas") in ("reject", "discard")
    )
    if parser == "must_accept":
        if verdict.message is None:
            yield f"refused by the parser: {error}"
        elif error is not None and not refused_above:
            yield f"refused: {error}"
    elif parser in ("should_reject", "reject_or_repair") and error is None:
        yield f"accepted in spite of {entry['defect']}"
    if error is not None and parser != "either" and expected.get("uas") in ("reject", "discard"):
        statuses = expected["status"] if expected["uas"] == "reject" else [None]
        if error.status_code not in statuses:
            yield f"refused with {error.status_code} in place of {statuses}"


def meaning(message: Request | Response) -> dict[str, Any]:
    """What two spellings of one message have in common: typed values, in the order within each name."""
    fields: dict[str, list[Any]] = {}
    for name, value in message.headers:
        try:
            parsed = plain(parse_field(name, value))
        except MessageParsingException:
            parsed = value
        fields.setdefault(field_key(name), []).extend(parsed if isinstance(parsed, list) else [parsed])
    return {"start_line": message.start_line, "fields": fields, "body": message.body.hex()}


# ---------------------------------------------------------------------- framing


class Framed(NamedTuple):
    """What came out of one stream. Sizes are of whole messages, malformed ones too."""

    messages: list[Request | Response | Malformed]
    sizes: list[int]
    left: int
    lost: bool


def frame(data: bytes, cuts: list[int] | None = None) -> Framed:
    """Feed the octets, cut at the given places."""
    framer = StreamFramer()
    messages: list[Request | Response | Malformed] = []
    lost = False
    start = 0
    for end in [*(cuts or ()), len(data)]:
        try:
            for item in framer.feed(data[start:end]):
                if not isinstance(item, Ping | Pong):
                    messages.append(item)
        except MessageParsingException:
            pass
        start = end
        if framer.error is not None:
            lost = True
            break
    sizes = [len(item.data if isinstance(item, Malformed) else item.to_bytes()) for item in messages]
    return Framed(messages, sizes, framer.close(), lost)


def check_framing(entry: dict[str, Any], data: bytes) -> Iterator[str]:
    framed = frame(data)
    wanted = entry.get("stream") or entry.get("expect", {}).get("stream")
    if wanted == "any":
        return
    lengths = entry.get("stream_message_lengths")
    if wanted == "close" and not framed.lost:
        yield "the stream goes on, where framing is lost"
    if wanted == "incomplete" and (framed.lost or not framed.left or framed.messages):
        yield "the stream does not wait for more"
    if wanted == "message" and (framed.lost or len(framed.sizes) != len(lengths or [0])):
        yield f"the stream gives {len(framed.sizes)} messages" + (" and is lost" if framed.lost else "")
    if lengths is not None and entry["verdict"] == "valid" and framed.sizes != without_keep_alives(lengths, data):
        yield f"the stream gives messages of {framed.sizes} octets in place of {lengths}"
    chunks = entry.get("chunks")
    if chunks:
        cuts = list(cuts_of(chunks, len(data)))
        if [m.sizes for m in (frame(data, cuts),)] != [framed.sizes]:
            yield "in pieces the stream gives other messages"


def without_keep_alives(lengths: list[int], data: bytes) -> list[int]:
    """The lengths of messages, which in the corpus include the CRLFs before each."""
    sizes, start = [], 0
    for length in lengths:
        sizes.append(len(data[start : start + length].lstrip(b"\r\n")))
        start += length
    return sizes


def cuts_of(chunks: Any, size: int) -> Iterator[int]:
    """The places where the octets are to be cut, from lengths of pieces or from one length for all."""
    if isinstance(chunks, dict):
        yield from range(chunks["each"], size, chunks["each"])
        return
    position = 0
    for length in chunks:
        position += length
        if position < size:
            yield position


def check_streams(corpus: Corpus) -> Iterator[Finding]:
    source = random.Random(SEED)
    entries = {entry["file"]: entry for entry in corpus.messages()}
    for stream in corpus.streams():
        data = corpus.octets(stream["file"])
        whole = frame(data)
        problems = list(check_stream(stream, whole, entries))
        ways = {"octet by octet": list(range(1, len(data)))}
        for number in range(CHUNKINGS):
            ways[f"in random pieces ({number})"] = sorted(source.sample(range(1, len(data)), min(40, len(data) // 8)))
        for way, cuts in ways.items():
            other = frame(data, cuts)
            if (other.sizes, other.lost) != (whole.sizes, whole.lost):
                problems.append(f"{way} it gives {len(other.sizes)} messages, whole {len(whole.sizes)}")
        yield Finding("streams", stream["file"], problems)


def check_stream(stream: dict[str, Any], framed: Framed, entries: dict[str, dict[str, Any]]) -> Iterator[str]:
    expect = stream["expect"]
    parts = [part for part in stream["parts"] if "file" in part]
    count = {
        "all": len(parts),
        "all-then-incomplete": len(parts),
        "two-then-close": 2,
        "one-then-incomplete": 1,
        "two": 2,
        "resynchronise": len(parts),
    }[expect]
    if len(framed.messages) != count:
        yield f"{len(framed.messages)} messages in place of {count}"
    if expect == "two":
        return
    if framed.lost != (expect == "two-then-close"):
        yield "framing is lost" if framed.lost else "framing is not lost"
    if bool(framed.left) != expect.endswith("incomplete"):
        yield f"a message is {'' if framed.left else 'not '}cut off at the end"
    for part, message, size in zip(parts, framed.messages, framed.sizes, strict=False):
        if size != part["length"]:
            yield f"{part['file']} has {size} octets in place of {part['length']}"
        good = entries.get(part["file"], {}).get("verdict") == "valid"
        if good and isinstance(message, Malformed):
            yield f"{part['file']} is malformed: {message.error}"


# ---------------------------------------------------------------------- tables


def check_tables(corpus: Corpus) -> Iterator[Finding]:
    for table, check in TABLES.items():
        for row in corpus.rows(table):
            yield Finding(table, row["id"], list(check(row)))


def check_parsed(row: dict[str, Any], parse: Callable[[bytes], Any]) -> Iterator[str]:
    """One row of a parser table. ``parse`` gives what the corpus calls expected, or raises."""
    data = row["input"].encode() if "input" in row else base64.b64decode(row["input_b64"])
    try:
        found = parse(data)
    except MessageParsingException as error:
        if row["valid"]:
            yield f"{data!r} is refused: {error}"
        return
    if row["valid"]:
        yield from differences(row["expected"], found)
    elif not row.get("lenient_may_accept"):
        yield f"{data!r} is accepted in spite of {row['reason']}"


def check_uri(row: dict[str, Any]) -> Iterator[str]:
    yield from check_parsed(row, lambda data: uri_parts(parse_uri(text_of(data))))


def check_host(row: dict[str, Any]) -> Iterator[str]:
    yield from check_parsed(row, lambda data: {"type": host_type(SipUri.parse(f"sip:{text_of(data)}").host)})


def check_uri_equality(row: dict[str, Any]) -> Iterator[str]:
    if row["equal"] is None:
        return
    a, b = SipUri.parse(row["a"]), SipUri.parse(row["b"])
    if (a == b) != row["equal"] or (b == a) != row["equal"]:
        yield f"{a} and {b} are {'' if a == b else 'not '}equal: {row['rule']}"
    if a == b and hash(a) != hash(b):
        yield f"{a} and {b} are equal and have different hashes"


def check_field(row: dict[str, Any]) -> Iterator[str]:
    yield from check_parsed(row, parse_bare if row["kind"] == "name-addr" else parse_line)


def parse_bare(data: bytes) -> Any:
    return plain(NameAddr.parse(text_of(data)))


def parse_line(line: bytes) -> Any:
    """A header line, within a message that is sound apart from it."""
    headers = parse_message(b"SIP/2.0 200 OK\r\n" + line + b"\r\n\r\n" + bytes(4096)).headers
    if len(headers) != 1:
        raise MessageParsingException(f"{line!r} is {len(headers)} header fields.")
    ((name, value),) = headers
    return {"name": name, "canonical": canonical_name(name), "value": plain_field(name, value)}


def check_start_line(row: dict[str, Any]) -> Iterator[str]:
    yield from check_parsed(row, parse_start_line)


def parse_start_line(line: bytes) -> Any:
    """A start line, in front of header fields that are sound and fit it."""
    method = line.split(b" ")[0] or b"X"
    message = parse_message(
        line + b"\r\nVia: SIP/2.0/TCP a.example;branch=z9hG4bK1\r\nFrom: <sip:a@a.example>;tag=1\r\n"
        b"To: <sip:b@b.example>\r\nCall-ID: 1\r\nCSeq: 1 " + method.replace(b"/", b"") + b"\r\n\r\n"
    )
    message.validate()
    if isinstance(message, Request):
        return {"method": message.method, "request_uri": message.uri, "version": message.sip_version}
    return {"version": message.sip_version, "status": message.status_code, "reason": message.reason}


def check_certificate_identity(row: dict[str, Any]) -> Iterator[str]:
    san = row["san"]
    names = san or {"uri": [], "dns": [], "ip": []}
    identities = Identities.of(
        names["uri"], names["dns"], names["ip"], row["cn"], allow_common_name=True, has_names=san is not None
    )
    if list(identities.names) != row["expected_identities"]:
        yield f"the identities are {list(identities.names)} in place of {row['expected_identities']}"
    if row["expected_match"] is not None and identities.covers(row["aus_domain"]) != row["expected_match"]:
        yield f"{row['aus_domain']} is {'' if row['expected_match'] else 'not '}to be covered: {row['name']}"


def text_of(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


TABLES: dict[str, Callable[[dict[str, Any]], Iterator[str]]] = {
    "uri": check_uri,
    "uri_equality": check_uri_equality,
    "host": check_host,
    "name_addr": check_field,
    "via": check_field,
    "header_values": check_field,
    "date": check_field,
    "auth_header": check_field,
    "start_line": check_start_line,
    "certificate_identity": check_certificate_identity,
}


# ---------------------------------------------------------------------- the whole


def check_sockets(corpus: Corpus) -> Iterator[Finding]:
    for group, name, problems in check_endpoint(corpus.messages(), corpus.octets):
        yield Finding(group, name, problems)


SECTIONS: list[Callable[[Corpus], Iterator[Finding]]] = [check_messages, check_streams, check_tables, check_sockets]
"""Each gives one finding for each file or row that it looks at."""


def check(corpus: Corpus) -> Iterator[Finding]:
    for section in SECTIONS:
        yield from section(corpus)


def undeclared(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.problems and finding.name not in DECLARED]


def main() -> int:
    arguments = argparse.ArgumentParser(description="Run a conformance corpus against the codec and an endpoint.")
    arguments.add_argument("folder", type=Path, help="where manifest.json is, tests/data/corpus for example")
    findings = list(check(Corpus(arguments.parse_args().folder)))
    groups: dict[str, list[Finding]] = {}
    for finding in findings:
        groups.setdefault(finding.group, []).append(finding)
    for group, members in groups.items():
        agreeing = sum(not member.problems for member in members)
        print(f"{group:24}{agreeing:5} of {len(members):4} agree")
    for finding in findings:
        if finding.problems:
            reason = DECLARED.get(finding.name)
            print(f"\n{finding.name}" + (f" (declared: {reason})" if reason else ""))
            for problem in finding.problems:
                print("    " + problem.encode("ascii", "backslashreplace").decode())
    return 1 if undeclared(findings) else 0


if __name__ == "__main__":
    sys.exit(main())
