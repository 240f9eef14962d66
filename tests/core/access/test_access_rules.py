"""What may be called, and that no other reading of a path gets around it."""

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
    OVERRIDES,
    READ_ONLY,
    AccessRule,
    AccessRules,
    read_path,
)


def policy(*rules: str, read_only: bool = False) -> AccessRules:
    return AccessRules(map(AccessRule.parse, rules), read_only=read_only)


def passes(judge: AccessRules, method: str, target: str, caller: str = "anybody") -> bool:
    return judge.judge(caller, method, target, ()) is None


def test_without_an_allow_what_is_not_denied_passes() -> None:
    judge = policy("deny DELETE /**", "deny * /api/v4/workflows/*/settings")
    assert passes(judge, "GET", "/api/v4/workflows/1?page=2")
    assert not passes(judge, "DELETE", "/api/v4/workflows/1")
    assert not passes(judge, "PATCH", "/api/v4/workflows/1/settings")
    assert not passes(judge, "PATCH", "/api/v4/workflows/1/settings/")
    assert passes(judge, "PATCH", "/api/v4/workflows/1/settings/more")


def test_with_an_allow_only_what_is_allowed_passes() -> None:
    judge = policy("allow GET|POST /api/v4/**")
    assert passes(judge, "GET", "/api/v4")
    assert passes(judge, "HEAD", "/api/v4/workflows/")
    assert passes(judge, "POST", "/api/v4/workflows")
    assert not passes(judge, "PATCH", "/api/v4/workflows")
    assert not passes(judge, "GET", "/api/v2/OCR/FullText")
    assert not passes(judge, "GET", "/api")
    assert not passes(judge, "GET", "/api/v44/x")


def test_a_deny_wins_over_an_allow_wherever_it_stands() -> None:
    for rules in (("allow * /**", "deny GET /a"), ("deny GET /a", "allow * /**")):
        assert not passes(policy(*rules), "GET", "/a")
        assert passes(policy(*rules), "GET", "/b")


def test_a_caller_with_allows_of_its_own_has_these_only_and_every_common_deny() -> None:
    judge = policy("allow GET /**", "billing: allow POST /api/**", "deny * /api/x", "billing: deny * /api/y")
    assert passes(judge, "POST", "/api/v4", "billing")
    assert not passes(judge, "GET", "/api/v4", "billing")
    assert not passes(judge, "POST", "/api/x", "billing")
    assert not passes(judge, "POST", "/api/y", "billing")
    assert passes(judge, "GET", "/api/y", "other")
    assert not passes(judge, "POST", "/api/v4", "other")
    assert passes(policy("unix:uid=7: allow GET /a", "deny * /b"), "GET", "/a", "unix:uid=7")


def test_read_only_lets_safe_methods_pass_alone() -> None:
    judge = policy(read_only=True)
    assert all(passes(judge, method, "/api/v4/x") for method in ("GET", "HEAD", "OPTIONS"))
    assert judge.judge("a", "POST", "/api/v4/x", ()) is READ_ONLY
    assert judge.judge("a", "PURGE", "/api/v4/x", ()) is READ_ONLY


@pytest.mark.parametrize("field", [b"x-http-method-override", b"x-original-url", b"x-rewrite-url"])
def test_a_field_that_names_another_method_or_path_is_refused(field: bytes) -> None:
    assert policy("allow GET /**").judge("a", "GET", "/x", (b"accept", field)) is OVERRIDES


def test_the_reason_names_the_rule() -> None:
    judge = policy("deny GET /a", "allow GET /b")
    denial = judge.judge("x", "GET", "/a", ())
    assert denial is not None
    assert denial.reason == "rule: deny GET /a"
    assert judge.judge("x", "GET", "/c", ()) is NOT_ALLOWED


def test_an_escape_that_is_needless_or_harmless_is_no_disguise() -> None:
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
def test_a_path_with_two_readings_is_refused(target: str) -> None:
    assert policy("deny GET /elsewhere").judge("a", "GET", target, ()) is AMBIGUOUS


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("GET /a", "does not read"),
        ("permit GET /a", "does not read"),
        ("allow get /a", "names no methods"),
        ("allow GET,POST /a", "names no methods"),
        ("allow GET a", "is no path that can be decided on"),
        ("allow GET /a/**/b", "is no path that can be decided on"),
        ("allow GET /a/../b", "is no path that can be decided on"),
        ("allow GET /a?b", "is no path that can be decided on"),
    ],
)
def test_a_rule_that_means_nothing_is_an_error(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        AccessRule.parse(text)


# --- no raw path that the upstream could read as a forbidden one passes -------------------------


def _readings(raw: str) -> Iterator[str]:
    """The paths that some server or other would take `raw` for: each habit is known of a real one."""
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


def _disguises(word: str) -> st.SearchStrategy[str]:
    """Spellings of a word: each letter as itself, in the other case, or escaped once or twice."""
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
    _disguises("api"),
    _GLUE,
    _disguises("admin"),
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
def test_no_raw_path_that_the_upstream_could_read_as_a_forbidden_one_passes(raw: str) -> None:
    if "/api/admin" in set(_readings(raw)):
        assert not passes(policy("deny * /api/admin"), "GET", raw)
        assert not passes(policy("allow * /api/*/x", "allow * /api/public"), "GET", raw)


@given(st.text(st.sampled_from("abAB01-_.~@:!/%25"), max_size=20).map("/".__add__))
def test_what_passes_has_one_reading(raw: str) -> None:
    segments = read_path(raw)
    if segments is not None:
        expected = ("/" + "/".join(segments)).casefold()
        assert set(_readings(raw)) - {_readings_of_raw(raw)} <= {expected}


def _readings_of_raw(raw: str) -> str:
    """What a server sees that decodes nothing; it has no resource by that name."""
    return posixpath.normpath("/" + raw.partition("?")[0].lstrip("/")).casefold()
