"""Which responses may be kept with their ETag, and what a 304 changes in them."""

import pytest

from nanonets_proxy.core.http.revalidation import fields_to_keep, kept_tag, may_be_revalidated, updated_fields

Fields = tuple[tuple[bytes, ...], tuple[bytes, ...]]
TAG = b'"1"'


def section(*lines: bytes) -> Fields:
    """Returns names and values of lines such as `ETag: "1"`."""
    pairs = [line.split(b": ", 1) for line in lines]
    return tuple(name for name, _ in pairs), tuple(value for _, value in pairs)


@pytest.mark.parametrize(
    "line",
    [
        b'If-None-Match: "2"',
        b'if-match: "2"',
        b"If-Modified-Since: Sun, 29 Nov 2026 12:00:00 GMT",
        b"If-Unmodified-Since: Sun, 29 Nov 2026 12:00:00 GMT",
        b'If-Range: "2"',
        b"Range: bytes=0-1",
        b"Cache-Control: max-age=0, No-Store",
    ],
)
def test_a_get_with_a_condition_a_range_or_no_store_is_left_alone(line: bytes) -> None:
    assert not may_be_revalidated(*section(b"Accept: */*", line))


def test_a_plain_get_may_be_revalidated() -> None:
    assert may_be_revalidated(*section(b"Accept: */*", b"Cache-Control: no-cache"))


@pytest.mark.parametrize("tag", [b'"1"', b'W/"1"', b'""', b'"a,b"', b'"\xff"'])
def test_a_response_with_a_strong_or_weak_tag_may_be_kept(tag: bytes) -> None:
    lines = (b"ETag: " + tag, b"Cache-Control: no-cache, max-age=0, must-revalidate", b"Vary: Accept, Cookie")
    assert kept_tag(*section(*lines), frozenset({b"x-request-id"})) == tag


@pytest.mark.parametrize(
    "lines",
    [
        (b"Content-Type: application/json",),
        (b"ETag: 1",),
        (b'ETag: w/"1"',),
        (b'ETag: "1 2"',),
        (b'ETag: "1"', b'ETag: "1"'),
        (b'ETag: "1"', b"Cache-Control: no-store"),
        (b'ETag: "1"', b"cache-control: max-age=0", b"Cache-Control: Private"),
        (b'ETag: "1"', b'Cache-Control: private="x-a"'),
        (b'ETag: "1"', b"Vary: *"),
        (b'ETag: "1"', b"Vary: Accept, X-Request-Id"),
        (b'ETag: "1"', b"Set-Cookie: a=b"),
    ],
)
def test_other_responses_are_not_kept(lines: tuple[bytes, ...]) -> None:
    assert kept_tag(*section(*lines), frozenset({b"x-request-id"})) is None


def test_fields_of_one_response_are_not_kept() -> None:
    lines = (b"ETag: " + TAG, b"Content-Length: 2", b"X-A: 1", b"x-a: 2")
    of_one = (
        b"Date: now",
        b"Age: 3",
        b"X-Request-Id: 1",
        b"RateLimit: 5",
        b"Connection: X-B",
        b"X-B: 1",
        b"Via: 1.1 a",
    )
    assert fields_to_keep(*section(*lines, *of_one)) == section(*lines)


def test_a_304_replaces_the_fields_that_it_has() -> None:
    kept = section(
        b"Content-Type: text/csv", b"Content-Length: 9", b"X-A: 1", b"X-A: 2", b"ETag: " + TAG, b"X-B: 1"
    )
    new = section(
        *(b"Date: later", b"x-a: 3", b'ETag: W/"1"', b"Content-Length: 0", b"Content-Type: text/html"),
        *(b"Connection: X-Hop", b"X-Hop: 1", b"X-C: 1"),
    )
    assert updated_fields(kept, *new) == section(
        *(b"Content-Type: text/csv", b"Content-Length: 9", b"X-B: 1"),
        *(b"Date: later", b"x-a: 3", b'ETag: W/"1"', b"X-C: 1"),
    )


@pytest.mark.parametrize(
    ("kept_tag", "tags", "is_updated"),
    [
        (b'"1"', [], True),
        (b'"1"', [b'"1"'], True),
        (b'"1"', [b'"2"', b'"1"'], True),
        (b'"1"', [b'W/"1"'], True),
        (b'W/"1"', [b'W/"1"'], True),
        (b'"1"', [b'"1-gzip"'], False),  # of another compression
        (b'"1"', [b'W/"1"', b'"2"'], False),
        (b'"1"', [b'W/"2"'], False),
        (b'W/"1"', [b'"1"'], False),
    ],
)
def test_a_304_whose_tag_identifies_another_response_changes_no_kept_field(
    kept_tag: bytes, tags: list[bytes], is_updated: bool
) -> None:
    kept = section(b"ETag: " + kept_tag, b"X-A: 1")
    new = section(*(b"ETag: " + tag for tag in tags), b"x-a: 2", b"X-B: 1", b"Date: now", b"Retry-After: 1")
    names, values = updated_fields(kept, *new)
    fields = dict(zip(names, values, strict=True))
    assert (fields[b"Date"], fields[b"Retry-After"]) == (b"now", b"1")
    if is_updated:
        assert (fields[b"x-a"], fields[b"X-B"]) == (b"2", b"1")
    else:
        assert (fields[b"X-A"], fields[b"ETag"]) == (b"1", kept_tag)
        assert not {b"x-a", b"X-B"} & fields.keys()
