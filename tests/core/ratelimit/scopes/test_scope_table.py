"""The scope of a request, by the default rules and by others."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanonets_proxy.core.ratelimit.scopes.scope_table import (
    DEFAULT_SCOPE_RULES,
    MAX_SCOPE_CHARS,
    ScopeRule,
    ScopeTable,
)

DEFAULT = ScopeTable(ScopeRule.parse(text) for text in DEFAULT_SCOPE_RULES)


@pytest.mark.parametrize("family", ["OCR", "ImageCategorization", "ObjectDetection"])
@pytest.mark.parametrize("call", ["LabelFile", "LabelUrls"])
@pytest.mark.parametrize("end", ["", "/", "?async=true", "/?async=false", "?"])
def test_a_v2_prediction_counts_against_its_model(family: str, call: str, end: str) -> None:
    assert DEFAULT.classify("POST", f"/api/v2/{family}/Model/m-1/{call}{end}") == "v2:predict:m-1"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v2/OCR/Model/m/LabelFile/"),
        ("POST", "/api/v2/OCR/Model/m/LabelFile/more"),
        ("POST", "/api/v2/OCR/Model//LabelFile"),
        ("POST", "/api/v2/OCR/Model/m/LabelFile//"),
        ("POST", "/api/v2/OCR/Model/m%2FLabelFile"),
        ("POST", "/api/v2/OCR/Model/m/labelfile"),
        ("GET", "/api/v2/Inferences/Model/m/ImageLevelInferences/2"),
        ("POST", "/api/v2/OCR/FullText"),
        ("GET", "/api/v2"),
        ("GET", "/api/v2/"),
        ("GET", "/api/v2?x=/api/v4"),
        ("GET", "/api/%76%32/x"),
    ],
)
def test_other_v2_requests_share_one_scope(method: str, path: str) -> None:
    assert DEFAULT.classify(method, path) == "v2:other"


@pytest.mark.parametrize(
    "path", ["/api/v4/workflows", "/", "", "*", "/api/v22/x", "/API/v2/x", "/x/api/v2/y", "/?/api/v2/"]
)
def test_a_request_without_a_matching_rule_counts_against_the_account(path: str) -> None:
    assert DEFAULT.classify("POST", path) == "account"


def test_escaping_an_unreserved_character_does_not_evade_a_rule() -> None:
    assert DEFAULT.classify("POST", "/api/v2/OCR/Model/%6d%2d1/%4CabelFile") == "v2:predict:m-1"
    table = ScopeTable([ScopeRule.parse("GET /a/%4Cist -> list")])
    assert table.classify("GET", "/a/List") == "list"
    assert table.classify("GET", "/a/%4cis%74?q=%4c") == "list"


def test_an_escaped_slash_is_part_of_its_segment() -> None:
    assert DEFAULT.classify("POST", "/api/v2/OCR/Model/a%2Fb/LabelFile") == "v2:predict:a%2Fb"


def test_an_invalid_escape_stays_as_it_is() -> None:
    assert DEFAULT.classify("POST", "/api/v2/OCR/Model/a%zz%/LabelFile") == "v2:predict:a%zz%"


def test_a_long_model_id_does_not_make_a_scope_long() -> None:
    scope = DEFAULT.classify("POST", f"/api/v2/OCR/Model/{'m' * 5000}/LabelFile")
    assert len(scope) == MAX_SCOPE_CHARS
    assert scope.startswith("v2:predict:mmm")


def test_a_placeholder_in_a_path_is_plain_text() -> None:
    assert DEFAULT.classify("POST", "/api/v2/OCR/Model/{model}/LabelFile") == "v2:predict:{model}"


def test_the_first_matching_rule_applies() -> None:
    table = ScopeTable(map(ScopeRule.parse, ["* /a/b -> first", "* /a/{x} -> second:{x}", "GET /a/** -> third"]))
    assert table.classify("GET", "/a/b") == "first"
    assert table.classify("GET", "/a/c") == "second:c"
    assert table.classify("GET", "/a/c/d") == "third"
    assert table.classify("PUT", "/a/c/d") == "account"


def test_without_rules_each_request_counts_against_the_account() -> None:
    assert ScopeTable([]).classify("GET", "/api/v2/x") == "account"


def test_a_rule_for_all_paths_matches_each_path() -> None:
    table = ScopeTable([ScopeRule.parse("* /** -> all")])
    assert {table.classify("GET", path) for path in ("/", "", "/x", "/x/y/")} == {"all"}


def test_a_rule_can_match_the_root_alone() -> None:
    table = ScopeTable([ScopeRule.parse("GET / -> root")])
    assert {table.classify("GET", path) for path in ("/", "", "/?a=b")} == {"root"}
    assert table.classify("GET", "/x") == "account"


def test_a_scope_may_contain_several_segments_of_the_path() -> None:
    rules = ["GET /{a}/x/{b} -> x:{b}.{a}", "GET /{a}/y/{b}/** -> y:{b}", "GET /{a}/y -> y"]
    table = ScopeTable(map(ScopeRule.parse, rules))
    assert table.classify("GET", "/1/x/2/?c=/3") == "x:2.1"
    assert table.classify("GET", "/1/y/2?c=3") == "y:2"
    assert table.classify("GET", "/1/y/2/z?c=3") == "y:2"
    assert table.classify("GET", "/1/y/") == "y"
    assert table.classify("GET", "/1/y?/2") == "y"
    assert table.classify("GET", "/1/y//2") == "account"


def test_a_rule_is_written_as_it_was_parsed() -> None:
    for text in DEFAULT_SCOPE_RULES:
        assert str(ScopeRule.parse(text)) == text
        assert ScopeRule.parse(f"  {text.replace(' ', '   ')} ") == ScopeRule.parse(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not of the form METHOD /path -> scope"),
        ("POST /a", "is not of the form METHOD /path -> scope"),
        ("POST /a => b", "is not of the form METHOD /path -> scope"),
        ("POST /a -> b c", "the unit must be requests or pages, not 'c'"),
        ("POST /a -> b pages c", "is not of the form METHOD /path -> scope"),
        ("post /a -> b", "'post' is not a method"),
        ("POST a -> b", "'a' is not a path"),
        ("POST /a?b=c -> b", "'/a?b=c' is not a path"),
        ("POST /a#b -> b", "'/a#b' is not a path"),
        ("POST /a//b -> b", "segment ''"),
        ("POST /a/x{id} -> b", "segment 'x{id}'"),
        ("POST /a/{} -> b", "segment '{}'"),
        ("POST /a/{1} -> b", "segment '{1}'"),
        ("POST /**/a -> b", "segment '**'"),
        ("POST /a/b* -> b", "segment 'b*'"),
        ("POST /{a}/{a} -> b", "uses a name twice"),
        ("POST /{a}/ -> b:{c}", "has no {c} for the scope"),
        ("POST /{a}/ -> b:{a", "'b:{a' is not a scope name"),
        ("POST /{a}/ -> b/c", "'b/c' is not a scope name"),
    ],
)
def test_an_invalid_rule_is_a_value_error_with_a_reason(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)) as raised:
        ScopeRule.parse(text)
    assert "\n" not in str(raised.value)


@given(st.text(), st.text())
def test_each_request_has_a_scope_of_bounded_length(method: str, path: str) -> None:
    assert 0 < len(DEFAULT.classify(method, "/api/v2/" + path)) <= MAX_SCOPE_CHARS


@given(st.text(alphabet=st.characters(codec="ascii", exclude_characters="?/%"), min_size=1, max_size=60))
def test_a_scope_contains_the_model_id_unchanged(model: str) -> None:
    assert DEFAULT.classify("POST", f"/api/v2/OCR/Model/{model}/LabelUrls/") == f"v2:predict:{model}"


def test_a_rule_may_say_that_its_limit_is_in_pages() -> None:
    rule = ScopeRule.parse("POST /predict/{model} -> predict:{model} pages")
    assert (rule.scope, rule.unit, rule.scope_pattern) == ("predict:{model}", "pages", "predict:*")
    assert ScopeRule.parse(str(rule)) == rule
    assert str(ScopeRule.parse("* /a -> b requests")) == "* /a -> b"
