"""Recognizes text that is not a key, such as a placeholder."""

from base64 import b64encode

import pytest

from nanonets_proxy.core.keys.api_key import ApiKey
from nanonets_proxy.core.keys.key_mistakes import without_keys


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('"0f3a9c"', "quotation mark"),
        ("'0f3a9c'", "quotation mark"),
        ('0f3a9c"', "quotation mark"),
        ("NANONETS_API_KEY=0f3a9c", "NAME=key"),
        ("api_key=0f3a9c", "NAME=key"),
        ("None", "empty value"),
        ("null", "empty value"),
        ("undefined", "empty value"),
        ("/run/secrets/nanonets_api_key", "path of a file"),
        ("${NANONETS_API_KEY}", "variable"),
        ("$NANONETS_API_KEY", "variable"),
        ("{{api_key}}", "variable"),
        ("<your-api-key>", "variable"),
        ("your-api-key", "placeholder"),
        ("YOUR_API_KEY_HERE", "placeholder"),
        ("YOUR_NANONETS_API_KEY", "placeholder"),
        ("replace-me", "placeholder"),
        ("changeme", "placeholder"),
        ("REPLACE_WITH_YOUR_KEY", "placeholder"),
        ("api-key-here", "placeholder"),
        ("xxxxxxxx", "placeholder"),
        (b64encode(b"0f3a9c:").decode(), "Base64"),
    ],
)
def test_a_text_that_is_hardly_a_key_is_recognized_and_not_quoted(text: str, sentence: str) -> None:
    mistake = ApiKey.parse(text, "test").mistake()
    assert mistake is not None
    assert sentence in mistake
    assert text not in mistake or sentence == "empty value"


@pytest.mark.parametrize(
    "text",
    [
        "sk-test-0123456789",
        "0f3a9c52-7be1-11ef-a1c3-0242ac120002",
        "jRNl8aT_yourW3xxx-keyQ",
        "c2VjcmV0LWtleS13aXRoLXBhZGRpbmc=",
        "AbCdEf123456==",
        "no-such-key",
        "nonesuch",
    ],
)
def test_other_texts_may_be_keys(text: str) -> None:
    assert ApiKey.parse(text, "test").mistake() is None


@pytest.mark.parametrize(
    ("sentence", "shown"),
    [
        ("x: '0f3a9c52-7be1-11ef-a1c3-0242ac120002' is no pin", "x: '(not shown)' is no pin"),
        ("eu.whsec_AbCd/EfGh+1: unknown setting", "(not shown): unknown setting"),
        ("write whsec_ and 24 random bytes", "write whsec_ and 24 random bytes"),
        ("/run/secrets/0123456789abcdef0123 is a directory", "/run/secrets/0123456789abcdef0123 is a directory"),
        ("NANONETS_API_KEY_STAGING_2 is set", "NANONETS_API_KEY_STAGING_2 is set"),
    ],
)
def test_an_error_is_shown_without_words_that_may_be_keys(sentence: str, shown: str) -> None:
    assert without_keys(sentence) == shown
