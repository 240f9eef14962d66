"""Which responses the API would not send, and what the log shows of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanonets_proxy.core.api.unexpected import (
    HTML,
    OTHER_TYPE,
    SAMPLE_CHARS,
    USUAL_TYPES,
    claims_json,
    may_have_unexpected_body,
    sample,
    unexpected_type,
)

WORKFLOWS = "/api/v4/workflows"
ORIGINAL = "/api/v4/workflows/{workflow}/documents/{document}/original"


@pytest.mark.parametrize(
    "content_type", [*sorted(USUAL_TYPES), b"Application/Problem+JSON", b"text/json ; x=y", None]
)
def test_json_is_expected(content_type: bytes | None) -> None:
    assert unexpected_type(WORKFLOWS, content_type, b"") is None


@pytest.mark.parametrize(
    ("route", "content_type", "start", "kind"),
    [
        (WORKFLOWS, b"text/html; charset=utf-8", b"<html>", HTML),
        (WORKFLOWS, b"Application/XHTML+xml", b"", HTML),
        (WORKFLOWS, None, b"  <!DOCTYPE html>", HTML),
        ("/api/v4/other", b"text/html", b"<html>", HTML),
        (ORIGINAL, b"text/html", b"<html>", HTML),
        (WORKFLOWS, b"text/plain", b"upstream connect error", OTHER_TYPE),
        (WORKFLOWS, b"application/pdf", b"%PDF", OTHER_TYPE),
        (ORIGINAL, b"application/pdf", b"%PDF", None),
        ("/api/v1/extract/stream", b"text/event-stream", b"data: {}", None),
        ("/api/v1/extract/sync", b"text/plain", b"upstream connect error", OTHER_TYPE),
        ("/api/v4/other", b"text/plain", b"not found", None),
        (WORKFLOWS, None, b"not found", None),
        (WORKFLOWS, b"text/plain", b' {"code": "x"}', None),
        (WORKFLOWS, b"text/html", b"[1]", None),
    ],
)
def test_html_and_other_types_are_unexpected(
    route: str, content_type: bytes | None, start: bytes, kind: str
) -> None:
    assert unexpected_type(route, content_type, start) == kind


@pytest.mark.parametrize(
    ("route", "method", "status", "may"),
    [
        (WORKFLOWS, "GET", 200, True),
        ("/api/v2/other", "GET", 503, True),
        ("/other", "GET", 200, False),
        (WORKFLOWS, "HEAD", 200, False),
        (WORKFLOWS, "DELETE", 204, False),
        (WORKFLOWS, "GET", 304, False),
    ],
)
def test_responses_without_a_body_and_pages_outside_of_the_api_are_left_alone(
    route: str, method: str, status: int, may: bool
) -> None:
    assert may_have_unexpected_body(route, method, status) is may


@pytest.mark.parametrize(
    ("content_type", "start", "claims"),
    [(b"application/json", b"oops", True), (None, b"{", True), (None, b"oops", False), (b"text/html", b"<", False)],
)
def test_a_body_claims_to_be_json_by_its_type_or_its_start(
    content_type: bytes | None, start: bytes, claims: bool
) -> None:
    assert claims_json(content_type, start) is claims


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"<html>\r\n<title>Sign in</title>", "<html> <title>Sign in</title>"),
        (b"caf\xc3\xa9 \xff", "café \ufffd"),
        (b"nnp_" + b"a" * 43 + b"!", "!"),
        (b'<a href="/x?token=abc&next=%2F">', '<a href="/x?token=…&next=…">'),
        (b"sid=" + b"Ab0-" * 10 + b" end", "… end"),
        (b"\x1b[31mred\x00", "[31mred"),
    ],
)
def test_a_sample_is_printable_and_shows_no_tokens(data: bytes, text: str) -> None:
    assert sample(data) == text


def test_a_long_word_at_the_end_of_the_sample_is_hidden() -> None:
    assert sample(b"x " * 95 + b"k" * 36) == "x " * 95 + "…"


@given(st.binary())
def test_a_sample_is_short(data: bytes) -> None:
    text = sample(data)
    assert len(text) <= SAMPLE_CHARS
    assert not any(character < " " for character in text)
