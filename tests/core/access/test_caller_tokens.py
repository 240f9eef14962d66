"""Tokens of callers."""

from base64 import b64encode
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanonets_proxy.core.access.caller_tokens import (
    CallersByToken,
    CallerToken,
    check_caller_name,
    make_token,
    parse_token_lines,
    token_from_authorization,
)

TOKEN = make_token(bytes(range(32)))


def test_a_token_finds_its_caller_and_no_other_does() -> None:
    table = CallersByToken([CallerToken.of("billing", TOKEN), CallerToken.of("search", make_token(b"x" * 32))])
    assert table.caller_of(TOKEN.encode()) == "billing"
    assert table.caller_of(TOKEN.encode() + b"x") is None
    assert table.caller_of(b"") is None
    assert table.caller_of(sha256(TOKEN.encode()).hexdigest().encode()) is None


def test_one_name_may_have_several_tokens_and_one_token_one_name() -> None:
    lines = [CallerToken.of("billing", TOKEN), CallerToken.of("billing", make_token(b"x" * 32))]
    assert CallersByToken(lines).caller_of(TOKEN.encode()) == "billing"
    assert CallersByToken([lines[0], lines[0]]).caller_of(TOKEN.encode()) == "billing"
    with pytest.raises(ValueError, match="billing and search have the same token"):
        CallersByToken([lines[0], CallerToken.of("search", TOKEN)])


def test_a_line_reads_back_and_holds_no_token() -> None:
    made = CallerToken.of("billing", TOKEN)
    assert CallerToken.parse(f"  {made}\n") == made
    assert TOKEN not in str(made)


def test_a_token_is_long_enough_for_a_fast_hash() -> None:
    assert len(TOKEN) == len("nnp_") + 43
    with pytest.raises(ValueError, match="32 bytes"):
        make_token(b"short")


@pytest.mark.parametrize("name", ["", "1a", "a b", "unix:uid=0", "127.0.0.1", "é", "a" * 65, "::1"])
def test_a_name_looks_like_no_address(name: str) -> None:
    with pytest.raises(ValueError, match="is no caller's name"):
        check_caller_name(name)


def test_a_file_has_a_token_a_line_with_comments() -> None:
    made = CallerToken.of("billing", TOKEN)
    assert parse_token_lines(f"# callers\n\n{made}\n  {made}  \n") == (made, made)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "holds no token"),
        ("# nothing\n", "holds no token"),
        (f"# one\nbilling {TOKEN}\n", "line 2: is not NAME sha256:HEX"),
        ("1 sha256:" + "0" * 64, "line 1: '1' is no caller's name"),
    ],
)
def test_a_file_that_lets_nobody_in_or_holds_the_token_itself_is_an_error(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        parse_token_lines(text)
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize(
    ("credentials", "token"),
    [
        (b"Bearer abc", b"abc"),
        (b"bearer  abc ", b"abc"),
        (b"Basic " + b64encode(b"abc:"), b"abc"),
        (b"Basic " + b64encode(b"abc:password"), b"abc"),
        (b"Basic abc", None),
        (b"Basic \xff", None),
        (b"Digest abc", None),
        (b"abc", None),
        (b"Bearer a b", None),
        (b"", None),
    ],
)
def test_where_the_token_stands(credentials: bytes, token: bytes | None) -> None:
    assert token_from_authorization(credentials) == token


@given(st.binary(max_size=200))
def test_no_credentials_are_too_strange(credentials: bytes) -> None:
    token = token_from_authorization(credentials)
    assert CallersByToken([CallerToken.of("a", TOKEN)]).caller_of(token or b"") is None
