"""Event, Subscription-State and Expires, as subscriptions read them (RFC 6665 8)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from p2psip.message import Request, Response

if TYPE_CHECKING:
    from p2psip.core.directory import EndpointRecord


class EventName(NamedTuple):
    """What a subscription is about: the package, and an id where one dialog holds several."""

    package: str
    id: str | None


class SubscriptionStateValue(NamedTuple):
    """``active``, ``pending`` or ``terminated`` (or what a peer invented), with its parameters."""

    state: str
    reason: str | None
    expires: int | None
    retry_after: int | None


def event_name(text: str | None) -> EventName:
    """RFC 6665 8.2.1; packages compare with case, ids too."""
    package, parameters = _split(text or "")
    return EventName(package, parameters.get("id"))


def subscription_state(message: Request) -> SubscriptionStateValue | None:
    """None where there is none, which a NOTIFY must have (RFC 6665 4.1.3)."""
    state, parameters = _split(message.headers.get("Subscription-State") or "")
    if not state:
        return None
    return SubscriptionStateValue(
        state.lower(),
        (parameters.get("reason") or "").lower() or None,
        number(parameters.get("expires")),
        number(parameters.get("retry-after")),
    )


def allow_events(record: EndpointRecord) -> list[tuple[str, str]]:
    """Allow-Events of an endpoint that has named its packages (RFC 6665 8.2.2)."""
    packages = record.endpoint._event_packages()
    return [("Allow-Events", ", ".join(packages))] if packages else []


def expires_of(message: Request | Response) -> int | None:
    """Seconds in Expires; None without one that can be read."""
    return number(message.headers.get("Expires"))


def retry_after(message: Request | Response) -> int | None:
    """Seconds in Retry-After; None without one that can be read."""
    return number((message.headers.get("Retry-After") or "").split(";")[0].split("(")[0])


def number(text: str | None) -> int | None:
    """A number of seconds."""
    text = (text or "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else None


def _split(text: str) -> tuple[str, dict[str, str]]:
    first, *rest = text.split(";")
    parameters = {}
    for parameter in rest:
        name, _, value = parameter.partition("=")
        parameters[name.strip().lower()] = value.strip()
    return first.strip(), parameters
