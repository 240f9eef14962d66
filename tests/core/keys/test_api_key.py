"""The API key as a value: its forms, its faults, and that nothing prints it."""

import copy
import json
import pickle
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanonets_proxy.core.access.token_text import make_token
from nanonets_proxy.core.keys.api_key import ApiKey, KeyMisdirected, KeyUnusable
from nanonets_proxy.core.keys.audience import Audience, AuthScheme
from nanonets_proxy.core.keys.key_mistakes import MAX_KEY_CHARS
from nanonets_proxy.core.net.addresses import Origin

SECRET = "ab+c/D-9_x=="
API, DOCSTRANGE = Origin("https", "app.nanonets.com", 443), Origin("https", "extraction-api.nanonets.com", 443)
BASIC, BEARER = Audience(API), Audience(DOCSTRANGE, AuthScheme.BEARER)


@pytest.fixture
def key() -> ApiKey:
    return ApiKey.parse(SECRET, "env:NANONETS_API_KEY")


def test_the_key_is_the_user_name_of_basic_with_an_empty_password(key: ApiKey) -> None:
    assert key.bound_to(BASIC).authorization(API) == b"Basic " + b64encode(b"ab+c/D-9_x==:")


def test_the_key_is_a_bearer_token(key: ApiKey) -> None:
    assert key.bound_to(BEARER).authorization(DOCSTRANGE) == b"Bearer ab+c/D-9_x=="


@pytest.mark.parametrize("text", ["sec!ret", "=secret", "sec=ret", '"secret"', "secret,", "se%cret"])
def test_a_bearer_token_is_a_token68(text: str) -> None:
    key = ApiKey.parse(text, "env:KEY")
    with pytest.raises(KeyUnusable) as caught:
        key.bound_to(BEARER)
    assert caught.value.fault.startswith("has characters that no bearer token has")
    assert text not in str(caught.value)
    assert key.bound_to(BASIC)


@pytest.mark.parametrize(
    "other",
    [
        DOCSTRANGE,
        Origin("http", "app.nanonets.com", 443),
        Origin("https", "app.nanonets.com", 8443),
        Origin("https", "app.nanonets.com.evil.example", 443),
    ],
)
def test_a_key_is_sent_to_no_other_upstream(key: ApiKey, other: Origin) -> None:
    bound = key.bound_to(BASIC)
    with pytest.raises(KeyMisdirected) as caught:
        bound.authorization(other)
    assert SECRET not in str(caught.value)
    with pytest.raises(KeyUnusable, match="is the key of another upstream"):
        bound.bound_to(BEARER)
    assert bound.bound_to(BASIC) == bound


def test_a_key_without_an_upstream_is_sent_nowhere(key: ApiKey) -> None:
    with pytest.raises(KeyMisdirected):
        key.authorization(API)


def test_the_name_is_the_label_of_the_source(key: ApiKey) -> None:
    assert key.name == "env:NANONETS_API_KEY"


@pytest.mark.parametrize("padding", [" {} ", "{}\n", "\r\n\t{}\r\n"])
def test_white_space_around_a_key_is_ignored(padding: str, key: ApiKey) -> None:
    assert ApiKey.parse(padding.format(SECRET), "file") == key


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("se:cret", "has a colon in it"),
        ("secret:", "has a colon in it"),
        ("se cret", "has white space in it"),
        ("one\ntwo", "has white space in it"),
        ("Bearer secret", "has white space in it"),
        ("secr\u00e9t", "has characters that are not ASCII"),
        ("se\x00cret", "has control characters in it"),
        ("se\x7fcret", "has control characters in it"),
        ("s" * (MAX_KEY_CHARS + 1), "is longer than 4096 characters"),
    ],
)
def test_the_error_about_an_unusable_key_names_its_source_but_not_its_value(text: str, fault: str) -> None:
    with pytest.raises(KeyUnusable) as caught:
        ApiKey.parse(text, "env:NANONETS_API_KEY")
    assert str(caught.value) == f"the API key of env:NANONETS_API_KEY {fault}"
    assert caught.value.fault == fault


def test_a_key_of_the_greatest_length_is_accepted() -> None:
    text = "k" * MAX_KEY_CHARS
    assert ApiKey.parse(text, "file").secrets()[-1] == text.encode()


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters=":"), min_size=1))
def test_any_printable_ascii_text_without_a_colon_is_a_key_and_no_format_shows_it(text: str) -> None:
    key = ApiKey.parse(text, "file")
    shown = {repr(key), str(key), f"{key}", f"{key!r:>20}".strip(), "%s" % key, "%r" % key}  # noqa: UP031 - one more way to print
    assert shown == {"ApiKey(***)"}


def test_a_format_width_applies_to_the_mask(key: ApiKey) -> None:
    assert f"{key:>13}" == "  ApiKey(***)"


@pytest.mark.parametrize("extract", [pickle.dumps, copy.copy, copy.deepcopy, json.dumps, list, vars, bytes, hash])
def test_no_function_extracts_the_value(extract, key: ApiKey) -> None:
    with pytest.raises(TypeError):
        extract(key)


def test_the_state_of_a_key_cannot_be_read(key: ApiKey) -> None:
    with pytest.raises(TypeError, match="cannot be pickled"):
        key.__getstate__()


def test_a_key_is_constant(key: ApiKey) -> None:
    with pytest.raises(AttributeError, match="constant"):
        key.name = "other"
    with pytest.raises(AttributeError, match="constant"):
        del key.name


def test_keys_are_equal_by_value_not_by_source(key: ApiKey) -> None:
    assert key == ApiKey.parse(SECRET, "file:/run/secrets/nanonets_api_key")
    assert key != ApiKey.parse("other", "env:NANONETS_API_KEY")
    assert key != SECRET


def test_secrets_are_the_forms_that_redaction_must_find_longest_first(key: ApiKey) -> None:
    plain = SECRET.encode()
    assert set(key.secrets()) == {
        plain,
        b"ab+c/D-9_x",
        b"ab%2Bc%2FD-9_x%3D%3D",
        b64encode(plain + b":").rstrip(b"="),
        b64encode(plain).rstrip(b"="),
    }
    lengths = [len(form) for form in key.secrets()]
    assert lengths == sorted(lengths, reverse=True)


@pytest.mark.parametrize("host", ["app.nanonets.com", "extraction-api.nanonets.com"])
def test_a_callers_token_is_no_key_for_nanonets(host: str) -> None:
    token = ApiKey.parse(make_token(bytes(32)), "env:KEY")
    with pytest.raises(KeyUnusable, match="is a token of another nanonets-proxy"):
        token.bound_to(Audience(Origin("https", host, 443)))
    for other in ("proxy.example", "not-nanonets.com"):
        shared = Audience(Origin("http", other, 8080))
        assert token.bound_to(shared).audience == shared, "the upstream may be a proxy that takes tokens"
    assert ApiKey.parse("nnp_short", "env:KEY").bound_to(Audience(Origin("https", host, 443)))
