"""The request target: its form for the upstream, and its form for the log."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nanonets_proxy.core.http.target import loggable_target, origin_form
from nanonets_proxy.errors import BadRequest

UPSTREAM = frozenset({"app.nanonets.com", "app.nanonets.com:443"})


@pytest.mark.parametrize(
    "target", ["/", "/a/b?c=d", "/a?", "//x", "/%7E%2e%2E/../x", "/a[1]?b=[2]", "/caf\udce9", "/http://x/"]
)
def test_a_path_is_unchanged(target: str) -> None:
    assert origin_form("GET", target, UPSTREAM) == (target, None)


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("http://app.nanonets.com/a?b", "/a?b"),
        ("https://APP.nanonets.com:443/a", "/a"),
        ("HTTP://app.nanonets.com", "/"),
        ("http://app.nanonets.com?a=b", "/?a=b"),
        ("http://app.nanonets.com/a/http://x/", "/a/http://x/"),
    ],
)
def test_a_url_of_the_upstream_becomes_its_path(target: str, path: str) -> None:
    assert origin_form("GET", target, UPSTREAM) == (path, None)


@pytest.mark.parametrize("authority", ["localhost:8080", "Evil.example", "app.nanonets.com:80"])
def test_any_other_authority_is_returned_to_be_checked(authority: str) -> None:
    assert origin_form("GET", f"http://{authority}/x", UPSTREAM) == ("/x", authority)


@pytest.mark.parametrize("target", ["*", "http://app.nanonets.com"])
def test_options_may_have_the_asterisk_form(target: str) -> None:
    assert origin_form("OPTIONS", target, UPSTREAM) == ("*", None)


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "*"),
        ("GET", ""),
        ("GET", "a/b"),
        ("GET", "app.nanonets.com:443"),
        ("GET", "ftp://app.nanonets.com/"),
        ("GET", "http:/app.nanonets.com/"),
        ("GET", "?a=b"),
        ("OPTIONS", "**"),
    ],
)
def test_any_other_form_is_rejected(method: str, target: str) -> None:
    with pytest.raises(BadRequest):
        origin_form(method, target, UPSTREAM)


@given(st.sampled_from(["GET", "OPTIONS"]), st.text() | st.text().map("http://".__add__))
def test_the_upstream_always_gets_a_path_or_the_asterisk(method: str, target: str) -> None:
    try:
        path, _ = origin_form(method, target, UPSTREAM)
    except BadRequest:
        return
    assert path.startswith("/") or (path == "*" and method == "OPTIONS")


@given(st.text().map("/".__add__), st.sampled_from(["http://App.nanonets.com", "HTTPS://app.nanonets.com:443"]))
def test_the_path_after_the_authority_is_unchanged(path: str, origin: str) -> None:
    assert origin_form("GET", path, UPSTREAM) == (path, None)
    assert origin_form("GET", origin + path, UPSTREAM) == (path, None)


# --- the log -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "logged"),
    [
        ("/a", "/a"),
        ("/a?", "/a?"),
        ("/a?async=true&x=1", "/a?async&x"),
        ("/a?SECRETTOKEN", "/a?…"),
        ("/a?x=1=2?y=3&=4", "/a?x&…"),
        ("/a?x=1&&y[0].b-c=2", "/a?x&&y[0].b-c"),
        ("/a?c2VjcmV0LXRoYXQtaXMtbG9uZ2VyLXRoYW4tYS1uYW1l==", "/a?…"),
        ("/a?x%2Fy=1&sk:secret=", "/a?…&…"),
    ],
)
def test_the_log_keeps_query_names_and_drops_their_values(target: str, logged: str) -> None:
    assert loggable_target(target) == logged


def test_a_long_target_is_cut_and_ends_in_an_ellipsis() -> None:
    assert loggable_target("/" + "a" * 511) == "/" + "a" * 511
    assert loggable_target("/" + "a" * 512) == "/" + "a" * 511 + "…"


@given(
    st.text(),
    st.dictionaries(st.from_regex(r"[a-z]{1,9}", fullmatch=True), st.from_regex(r"[A-Z]+", fullmatch=True)),
)
def test_no_query_value_is_ever_logged(path: str, query: dict[str, str]) -> None:
    assume("?" not in path)
    logged = loggable_target(f"/{path}?" + "&".join(f"{name}={value}" for name, value in query.items()))
    assert len(logged) <= 513
    behind_path = logged.partition("?")[2]
    assert not any(char.isupper() for char in behind_path)
