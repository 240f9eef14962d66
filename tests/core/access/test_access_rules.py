"""Access rules, and that no spelling of a path gets around them."""

import posixpath
import unicodedata
from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanonets_proxy.core.access.access_rules import (
    AMBIGUOUS,
    NOT_ALLOWED,
    OVERRIDING_FIELD,
    OVERRIDING_PARAMETER,
    READ_ONLY,
    AccessRule,
    AccessRules,
    read_path,
)


def policy(*rules: str, read_only: bool = False) -> AccessRules:
    return AccessRules(map(AccessRule.parse, rules), read_only=read_only)


def passes(judge: AccessRules, method: str, target: str, caller: str = "anybody") -> bool:
    return judge.judge(caller, method, target, ()) is None


def test_without_an_allow_every_request_that_is_not_denied_passes() -> None:
    judge = policy("deny DELETE /**", "deny * /api/v4/workflows/*/settings")
    assert passes(judge, "GET", "/api/v4/workflows/1?page=2")
    assert not passes(judge, "DELETE", "/api/v4/workflows/1")
    assert not passes(judge, "PATCH", "/api/v4/workflows/1/settings")
    assert not passes(judge, "PATCH", "/api/v4/workflows/1/settings/")
    assert passes(judge, "PATCH", "/api/v4/workflows/1/settings/more")


def test_with_an_allow_only_allowed_requests_pass() -> None:
    judge = policy("allow GET|POST /api/v4/**")
    assert passes(judge, "GET", "/api/v4")
    assert passes(judge, "HEAD", "/api/v4/workflows/")
    assert passes(judge, "POST", "/api/v4/workflows")
    assert not passes(judge, "PATCH", "/api/v4/workflows")
    assert not passes(judge, "GET", "/api/v2/OCR/FullText")
    assert not passes(judge, "GET", "/api")
    assert not passes(judge, "GET", "/api/v44/x")


def test_a_deny_wins_over_an_allow_in_any_order() -> None:
    for rules in (("allow * /**", "deny GET /a"), ("deny GET /a", "allow * /**")):
        assert not passes(policy(*rules), "GET", "/a")
        assert passes(policy(*rules), "GET", "/b")


def test_a_callers_own_allows_replace_the_common_ones_but_every_common_deny_applies() -> None:
    judge = policy("allow GET /**", "billing: allow POST /api/**", "deny * /api/x", "billing: deny * /api/y")
    assert passes(judge, "POST", "/api/v4", "billing")
    assert not passes(judge, "GET", "/api/v4", "billing")
    assert not passes(judge, "POST", "/api/x", "billing")
    assert not passes(judge, "POST", "/api/y", "billing")
    assert passes(judge, "GET", "/api/y", "other")
    assert not passes(judge, "POST", "/api/v4", "other")
    assert passes(policy("unix:uid=7: allow GET /a", "deny * /b"), "GET", "/a", "unix:uid=7")


def test_read_only_allows_safe_methods_alone() -> None:
    judge = policy(read_only=True)
    assert all(passes(judge, method, "/api/v4/x") for method in ("GET", "HEAD", "OPTIONS"))
    assert judge.judge("a", "POST", "/api/v4/x", ()) is READ_ONLY
    assert judge.judge("a", "PURGE", "/api/v4/x", ()) is READ_ONLY


def test_a_field_or_parameter_that_overrides_the_method_is_rejected() -> None:
    judge = policy("allow GET /**")
    assert judge.judge("a", "GET", "/x", (b"accept", b"x-http-method-override")) is OVERRIDING_FIELD
    assert judge.judge("a", "GET", "/x?_method=DELETE", (b"accept",)) is OVERRIDING_PARAMETER


def test_a_deny_ignores_the_case_of_the_method_and_an_allow_does_not() -> None:
    assert not passes(policy("deny REINDEX /a"), "reindex", "/a")
    assert not passes(policy("allow REINDEX /a"), "reindex", "/a")
    assert passes(policy("allow REINDEX /a"), "REINDEX", "/a")


def test_the_reason_names_the_rule() -> None:
    judge = policy("deny GET /a", "allow GET /b")
    assert judge.judge("x", "GET", "/a", ()) == "rule: deny GET /a"
    assert judge.judge("x", "GET", "/c", ()) is NOT_ALLOWED


def test_needless_escapes_and_other_cases_do_not_evade_a_deny() -> None:
    judge = policy("deny GET /secret")
    assert not passes(judge, "GET", "/%73ecret")
    assert not passes(judge, "GET", "/SECRET")
    assert read_path("/a%20b/caf%C3%A9/x@y") == ("a b", "café", "x@y")
    assert read_path("/") == ()


@pytest.mark.parametrize(
    "target",
    [
        "*",
        "//a",
        "/a//b",
        "/a/../b",
        "/a/./b",
        "/a/..",
        "/a/%2e%2e/b",
        "/a/.%2E/b",
        "/a%2Fb",
        "/a%2fb",
        "/a%5cb",
        "/a\\b",
        "/a;x=1/b",
        "/a%3Bx/b",
        "/a%252Fb",
        "/a%00b",
        "/a%0Ab",
        "/a%7F",
        "/a%23b",
        "/a#b",
        "/a%3Fb",
        "/a%C0%AFb",
        "/a%FF",
        "/a%EF%BC%8Fb",
        "/%EF%BD%81dmin",
        "/café",
        "/a%2",
        "/a%zz",
        "/a b",
        "/a./b",
        "/a%20/b",
        "/%20a",
        "/a/ ",
    ],
)
def test_an_ambiguous_path_is_rejected(target: str) -> None:
    assert policy("deny GET /elsewhere").judge("a", "GET", target, ()) is AMBIGUOUS


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("GET /a", "is not a rule"),
        ("permit GET /a", "is not a rule"),
        ("allow get /a", "does not name methods"),
        ("allow GET,POST /a", "does not name methods"),
        ("allow GET a", "is not a path that a rule can match"),
        ("allow GET /a/**/b", "is not a path that a rule can match"),
        ("allow GET /a/../b", "is not a path that a rule can match"),
        ("allow GET /a?b", "is not a path that a rule can match"),
    ],
)
def test_a_malformed_rule_is_an_error(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        AccessRule.parse(text)


def test_a_rule_prints_as_its_text() -> None:
    assert str(AccessRule.parse(" billing: allow GET /a ")) == "billing: allow GET /a"


# --- no raw path passes if the upstream could read it as a forbidden path -----------------------


def _readings(raw: str) -> Iterator[str]:
    """Yields the paths that servers may read `raw` as. Each kind of reading is known from a real server."""
    once = _decoded(raw)
    for decoded in {raw, once, _decoded(once)}:
        for cut in {decoded, *(decoded.partition(mark)[0] for mark in "#?\0")}:
            for slashed in {cut, cut.replace("\\", "/")}:
                for plain in {slashed, "/".join(part.partition(";")[0] for part in slashed.split("/"))}:
                    for text in {plain, unicodedata.normalize("NFKC", plain)}:
                        for path in (text, "/".join(map(_trimmed, text.split("/")))):
                            yield posixpath.normpath("/" + path.lstrip("/")).casefold()


def _trimmed(part: str) -> str:
    return part if set(part) <= {"."} else part.strip(" ").rstrip(". ")


def _decoded(text: str) -> str:
    return unquote_to_bytes(text.encode("utf-8", "surrogateescape")).decode("utf-8", "replace")


def _spellings(word: str) -> st.SearchStrategy[str]:
    """Returns spellings of a word: each letter plain, in upper case, or escaped once or twice."""
    letters = [
        st.sampled_from([c, c.upper(), f"%{ord(c):02x}", f"%{ord(c):02X}", f"%25{ord(c):02x}"]) for c in word
    ]
    return st.tuples(*letters).map("".join)


_GLUE = st.sampled_from(
    [
        "/",
        "//",
        "/./",
        "/x/../",
        "%2f",
        "%2F",
        "%252f",
        "\\",
        "%5c",
        "/%2e/",
        "/x/%2e%2e/",
        ";a=1/",
        "%3b/",
        "%20/",
        "./",
    ]
)
_TAIL = st.sampled_from(
    [
        "",
        *[
            "/",
            "/.",
            "/x/..",
            "%00",
            "%23",
            "#",
            ";x",
            "%20",
            ".",
            "?a",
            "/%2e",
            "%3f",
            "%2f",
            "/%EF%BC%8E",
            "\\",
            "%5C..",
        ],
    ],
)
_RAW = st.builds(
    lambda a, b, c, d, e: f"{a}{b}{c}{d}{e}",
    st.sampled_from(["/", "//", "/./", "/x/../", "/\\", "/%2f", "/%5c"]),
    _spellings("api"),
    _GLUE,
    _spellings("admin"),
    _TAIL,
)
_WILD = st.lists(
    st.sampled_from(
        ["api", "admin", "/", ".", "..", "%2e", "%2f", "%5c", "\\", ";", "%00", "%25", "2f", "a", "A", "?"]
    ),
    max_size=9,
).map(lambda parts: "/" + "".join(parts))


@settings(max_examples=600)
@given(_RAW | _WILD)
def test_no_raw_path_passes_if_the_upstream_could_read_it_as_a_forbidden_path(raw: str) -> None:
    if "/api/admin" in set(_readings(raw)):
        assert not passes(policy("deny * /api/admin"), "GET", raw)
        assert not passes(policy("allow * /api/*/x", "allow * /api/public"), "GET", raw)


@given(st.text(st.sampled_from("abAB01-_.~@:!/%25"), max_size=20).map("/".__add__))
def test_a_path_that_is_not_ambiguous_has_one_reading(raw: str) -> None:
    segments = read_path(raw)
    if segments is not None:
        expected = ("/" + "/".join(segments)).casefold()
        assert set(_readings(raw)) - {_readings_of_raw(raw)} <= {expected}


def _readings_of_raw(raw: str) -> str:
    """Returns the reading of a server that decodes nothing. Such a server has no resource by that name."""
    return posixpath.normpath("/" + raw.partition("?")[0].lstrip("/")).casefold()
