import pytest

from nanonets_proxy.core.http.path_pattern import any_path, check_path_pattern

MATCHES = any_path(["/api/v4/workflows/{workflow}/documents/{document}", "/files/**"])


@pytest.mark.parametrize(
    "target",
    [
        "/api/v4/workflows/7/documents/8",
        "/api/v4/workflows/7/documents/8/",
        "/api/v4/workflows/7/documents/8?page=1",
        "/files",
        "/files/a/b?c",
    ],
)
def test_a_target_matches_a_pattern_whatever_its_query_and_last_slash(target: str) -> None:
    assert MATCHES(target)


@pytest.mark.parametrize(
    "target",
    [
        "/api/v4/workflows/7/documents",
        "/api/v4/workflows/7/documents/8/fields",
        "/api/v4/workflows//documents/8",
        "/filesystem",
    ],
)
def test_other_targets_do_not_match(target: str) -> None:
    assert not MATCHES(target)


def test_no_pattern_matches_nothing() -> None:
    assert not any_path([])("/")


@pytest.mark.parametrize("pattern", ["api", "/a?b", "/a//b", "/a/*/b", "/{a}/{a}"])
def test_an_invalid_pattern_is_rejected(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"path|segment|twice"):
        check_path_pattern(pattern)


def test_a_valid_pattern_is_returned() -> None:
    assert check_path_pattern("/api/{x}/**") == "/api/{x}/**"
