"""Caller tokens: the name that each proves, and the files that hold them."""

from base64 import b64encode
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanonets_proxy.core.access.caller_tokens import (
    CallersByToken,
    CallerToken,
    check_caller_name,
    parse_token_lines,
    tokens_in_authorization,
)
from nanonets_proxy.core.access.token_text import make_token

TOKEN = make_token(bytes(range(32)))


def test_only_the_token_itself_finds_its_caller() -> None:
    table = CallersByToken([CallerToken.of("billing", TOKEN), CallerToken.of("search", make_token(b"x" * 32))])
    assert table.caller_of(TOKEN.encode()) == "billing"
    assert table.caller_of(TOKEN.encode() + b"x") is None
    assert table.caller_of(b"") is None
    assert table.caller_of(sha256(TOKEN.encode()).hexdigest().encode()) is None


def test_a_name_may_have_several_tokens_but_a_token_only_one_name() -> None:
    lines = [CallerToken.of("billing", TOKEN), CallerToken.of("billing", make_token(b"x" * 32))]
    assert CallersByToken(lines).caller_of(TOKEN.encode()) == "billing"
    assert CallersByToken([lines[0], lines[0]]).caller_of(TOKEN.encode()) == "billing"
    with pytest.raises(ValueError, match="billing and search have the same token"):
        CallersByToken([lines[0], CallerToken.of("search", TOKEN)])


def test_a_line_parses_to_the_same_value_and_does_not_show_the_token() -> None:
    made = CallerToken.of("billing", TOKEN)
    assert CallerToken.parse(f"  {made}\n") == made
    assert TOKEN not in str(made)


def test_a_token_has_256_random_bits() -> None:
    assert len(TOKEN) == len("nnp_") + 43
    with pytest.raises(ValueError, match="32 random bytes"):
        make_token(b"short")


@pytest.mark.parametrize("name", ["", "1a", "a b", "unix:uid=0", "127.0.0.1", "é", "a" * 65, "::1"])
def test_a_name_never_looks_like_an_address(name: str) -> None:
    with pytest.raises(ValueError, match="is not a caller's name"):
        check_caller_name(name)


def test_a_file_has_one_token_a_line_and_may_have_comments() -> None:
    made = CallerToken.of("billing", TOKEN)
    assert parse_token_lines(f"# callers\n\n{made}\n  {made}  \n") == (made, made)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "holds no token"),
        ("# nothing\n", "holds no token"),
        (f"# one\nbilling {TOKEN}\n", "line 2: the entry is not NAME sha256:HEX"),
        ("1 sha256:" + "0" * 64, "line 1: '1' is not a caller's name"),
    ],
)
def test_a_file_without_tokens_or_with_a_token_in_plain_text_is_an_error(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        parse_token_lines(text)
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize(
    ("credentials", "tokens"),
    [
        (b"Bearer abc", (b"abc",)),
        (b"bearer  abc ", (b"abc",)),
        (b"Token abc", (b"abc",)),
        (b"abc", (b"abc",)),
        (b"Basic " + b64encode(b"abc:"), (b"abc",)),
        (b"basic " + b64encode(b"abc:password"), (b"abc", b"password")),
        (b"Basic " + b64encode(b":abc"), (b"abc",)),
        (b"Basic " + b64encode(b":"), ()),
        (b"Basic abc", ()),
        (b"Basic \xff", ()),
        (b"Bearer a b", ()),
        (b"Bearer ", (b"Bearer",)),
        (b"", ()),
    ],
)
def test_a_token_may_stand_wherever_a_client_puts_its_key(credentials: bytes, tokens: tuple[bytes, ...]) -> None:
    assert tokens_in_authorization(credentials) == tokens


@given(st.binary(max_size=200))
def test_arbitrary_credentials_are_read_without_an_error(credentials: bytes) -> None:
    callers = CallersByToken([CallerToken.of("a", TOKEN)])
    assert callers.caller_of_any(tokens_in_authorization(credentials)) is None
