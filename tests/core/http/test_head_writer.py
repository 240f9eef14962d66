"""Heads of the proxy's own requests, and the tokens in heads."""

import pytest

from nanonets_proxy.core.http.grammar import is_token
from nanonets_proxy.core.http.head_writer import request_head


def test_a_head_has_host_first_and_ends_in_an_empty_line() -> None:
    head = request_head(b"GET", b"/x", b"a.example", (b"B", b"2"), (b"C", b"3"))
    assert head == b"GET /x HTTP/1.1\r\nHost: a.example\r\nB: 2\r\nC: 3\r\n\r\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("X-Service", True), ("a!#$%&'*+.^_`|~0", True), ("", False), ("a b", False), ("ä", False)],
)
def test_a_token_is_made_of_the_characters_that_rfc_9110_lists(text: str, expected: bool) -> None:
    assert is_token(text) is expected
