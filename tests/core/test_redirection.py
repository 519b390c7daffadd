"""Which target of a redirection is next (RFC 3261 8.1.3.4)."""

from __future__ import annotations

import pytest
from core_support import make_request

from p2psip.core.redirection import Redirections, is_secure
from p2psip.message import Response, create_response

A, B, C = "sip:a@a.example", "sip:b@b.example", "sip:c@c.example"


def answer(code: int, *contacts: str) -> Response:
    request = make_request()
    request.headers.prepend("Via", "SIP/2.0/TLS 192.0.2.2;branch=z9hG4bK1")
    return create_response(request, code, headers=[("Contact", contact) for contact in contacts])


@pytest.fixture
def redirections() -> Redirections:
    found = Redirections(5)
    found.trying(A)
    return found


def test_the_most_wanted_comes_first_and_none_twice(redirections: Redirections) -> None:
    assert redirections.learn(answer(302, f"<{C}>;q=0.2", f"<{A}>;q=1", f"<{B}?Subject=x>;q=0.7", f"<{C}>;q=0.1"))
    assert redirections.remaining == [B, C]
    redirections.trying(B)
    assert redirections.learn(answer(302, f"<{A}>", f"<{B}>"))
    assert redirections.remaining == [C]
    redirections.trying(C)
    assert not redirections.has_next


def test_who_is_chosen_later_leaves_the_more_wanted_behind(redirections: Redirections) -> None:
    redirections.learn(answer(302, f"<{B}>", f"<{C}>;q=0.5"))
    redirections.trying(C)
    assert redirections.remaining == []


@pytest.mark.parametrize("contact", ["tel:+1", "*", "<sip:", "mailto:b@b.example", f"<{C}>;q=high", f"<{C}>;q=nan"])
def test_what_is_no_target(redirections: Redirections, contact: str) -> None:
    assert not redirections.learn(answer(302, contact))


def test_a_failure_leads_on_but_6xx_speaks_for_all(redirections: Redirections) -> None:
    redirections.learn(answer(302, f"<{B}>", f"<{C}>"))
    redirections.trying(B)
    assert redirections.learn(answer(404, f"<{A}2>"))
    assert redirections.remaining == [C]
    assert not redirections.learn(answer(603))


@pytest.mark.parametrize("maximum", [0, 1, 3])
def test_only_so_many(maximum: int) -> None:
    redirections = Redirections(maximum)
    redirections.trying(A)
    tries = 0
    while redirections.learn(answer(302, f"<sip:{tries}@a.example>")):
        redirections.trying(redirections.remaining[0])
        tries += 1
    assert tries == maximum


@pytest.mark.holds("R11")
@pytest.mark.parametrize(
    ("uri", "secure"), [("sips:a@b.example", True), ("SIPS:a@b.example", True), ("sip:sips@b.example", False)]
)
def test_what_is_secure(uri: str, secure: bool) -> None:
    assert is_secure(uri) is secure
