"""Kept responses: how long each may be asked about, and how much room they take."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanonets_proxy.core.coalescing.groups import Follower, Groups
from nanonets_proxy.core.coalescing.kept_responses import KeptResponses
from nanonets_proxy.core.coalescing.writes import may_change, segments_of
from nanonets_proxy.core.keys.api_key import ApiKey

DOCUMENT = "/api/v4/workflows/7/documents/8"


def kept(responses: KeptResponses[str], key: str = "key", target: str = DOCUMENT, size: int = 10) -> str:
    """Lets a response arrive and be kept."""
    arriving = responses.begin(target)
    response = f"response to {key}"
    responses.keep(key, arriving, response, size)
    responses.end(arriving)
    return response


def test_the_latest_response_is_found_by_its_key() -> None:
    responses = KeptResponses[str]()
    assert responses.find("key") is None
    first = kept(responses)
    assert responses.find("key") is first
    second = kept(responses)
    assert responses.find("key") is second
    assert responses.find("other") is None


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", DOCUMENT),
        ("PATCH", DOCUMENT + "/fields/1"),
        ("DELETE", "/api/v4/workflows/7"),
        ("PUT", "/api/v4/workflows/7/%2e/documents"),  # servers read it differently
    ],
)
def test_a_write_to_the_path_drops_the_kept_and_the_arriving_response(method: str, target: str) -> None:
    responses = KeptResponses[str]()
    kept(responses)
    arriving = responses.begin(DOCUMENT)
    responses.note_write(method, target)
    assert responses.find("key") is None
    assert arriving.is_outdated
    responses.keep("key", arriving, "old", 10)
    assert responses.find("key") is None
    assert responses.bytes == 0


def test_a_write_elsewhere_drops_nothing() -> None:
    responses = KeptResponses[str]()
    response = kept(responses)
    arriving = responses.begin(DOCUMENT)
    responses.note_write("POST", "/api/v4/workflows/7/documents")
    responses.note_write("DELETE", "/api/v4/workflows/7/documents/9")
    assert not arriving.is_outdated
    assert responses.find("key") is response


def test_a_response_to_a_path_that_servers_read_differently_is_not_kept() -> None:
    responses = KeptResponses[str]()
    kept(responses, target="/api/v4/a/../b")
    assert responses.find("key") is None


def test_the_least_recently_used_response_makes_room() -> None:
    responses = KeptResponses[str](most_bytes=3 * 3048)
    for key in ("a", "b", "c"):
        kept(responses, key, size=1000)
    assert responses.find("a") is not None
    kept(responses, "d", size=1000)
    assert responses.find("b") is None
    assert all(responses.find(key) is not None for key in ("a", "c", "d"))
    assert responses.bytes == 3 * 3048


def test_a_response_larger_than_the_room_is_not_kept() -> None:
    responses = KeptResponses[str](most_bytes=5000)
    kept(responses, size=5000)
    assert responses.find("key") is None
    assert responses.bytes == 0


def test_an_update_replaces_the_response_that_it_is_of() -> None:
    responses = KeptResponses[str]()
    first = kept(responses, size=1000)
    responses.update("key", first, "updated", 1100)
    assert responses.find("key") == "updated"
    assert responses.bytes == 2048 + 1100
    responses.update("key", first, "updated from an old one", 1)
    responses.update("other", first, "of another key", 1)
    assert responses.find("key") == "updated"
    assert responses.find("other") is None


def test_another_key_drops_all_and_outdates_what_arrives() -> None:
    responses = KeptResponses[str]()
    key = ApiKey.parse("first", "a file")
    responses.use_key(key)
    response = kept(responses)
    arriving = responses.begin(DOCUMENT)
    for same in (key, ApiKey.parse("first", "another file")):
        responses.use_key(same)
        assert responses.find("key") is response
        assert not arriving.is_outdated
    responses.use_key(ApiKey.parse("second", "a file"))
    assert responses.find("key") is None
    assert arriving.is_outdated
    assert responses.bytes == 0


def test_an_ended_arrival_is_forgotten() -> None:
    responses = KeptResponses[str]()
    arriving = responses.begin(DOCUMENT)
    responses.end(arriving)
    responses.end(arriving)
    responses.note_write("PUT", DOCUMENT)
    assert not arriving.is_outdated


def test_a_write_that_the_groups_note_drops_the_kept_response() -> None:
    groups = Groups[Follower]()
    groups.note_write("PATCH", DOCUMENT)
    groups.kept = responses = KeptResponses[str]()
    kept(responses)
    groups.note_write("PATCH", DOCUMENT)
    assert responses.find("key") is None


@given(
    reads=st.lists(st.lists(st.sampled_from("ab"), max_size=3), max_size=8),
    write=st.lists(st.sampled_from("ab"), max_size=4),
    method=st.sampled_from(["POST", "PUT", "PATCH", "DELETE"]),
)
def test_a_write_drops_exactly_the_responses_that_it_may_change(
    reads: list[list[str]], write: list[str], method: str
) -> None:
    responses = KeptResponses[str]()
    written = "/" + "/".join(write)
    for number, read in enumerate(reads):
        kept(responses, str(number), "/" + "/".join(read))
    responses.note_write(method, written)
    left = [responses.find(str(number)) is not None for number in range(len(reads))]
    segments = [segments_of("/" + "/".join(read)) for read in reads]
    assert left == [not may_change(method, segments_of(written), each) for each in segments]
    assert responses.bytes == 2058 * sum(left)
