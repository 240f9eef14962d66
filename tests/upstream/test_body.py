"""Request bodies that can be sent again: the same bytes each time, within budgets, and no file left."""

import asyncio
import os
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol
from hypothesis import given
from hypothesis import strategies as st

from nanonets_proxy.upstream.body import BodyBudget, RequestBody
from support.caller_bodies import ArrivingBody, PiecewiseBody
from support.client_harness import body_budget

PIECES = st.lists(st.binary(min_size=1, max_size=60), max_size=8)
LIMITS = st.integers(0, 200)


async def read(body: RequestBody, count: int | None = None) -> bytes:
    """Reads the body to its end, or its start and `count` more pieces."""
    data = body.rewind()
    while count is None or count > 0:
        piece = await body.read()
        if not piece:
            break
        data += piece
        count = None if count is None else count - 1
    return data


def spool_files(spool_dir: Path) -> list[int]:
    """Returns the files in `spool_dir` that this process has open."""
    found = []
    for entry in os.scandir("/proc/self/fd"):
        try:
            link = Path(f"/proc/self/fd/{entry.name}").readlink()
        except FileNotFoundError:
            continue  # the descriptor that listed the directory
        if str(link).startswith(f"{spool_dir}/"):
            found.append(int(entry.name))
    return found


def names_in(directory: Path) -> list[str]:
    return [entry.name for entry in directory.iterdir()]


def is_untouched(budget: BodyBudget) -> bool:
    return (budget.memory_bytes, budget.spool_bytes, budget.spool_files) == (0, 0, 0)


# --- the same bytes each time --------------------------------------------------------------------------


@given(
    pieces=PIECES, limits=st.tuples(LIMITS, LIMITS, LIMITS, LIMITS), stops=st.lists(st.integers(0, 8), max_size=3)
)
async def test_a_replayable_body_reads_the_same_each_time(
    pieces: list[bytes],
    limits: tuple[int, int, int, int],
    stops: list[int],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    memory, memory_total, spool_total, replay = limits
    budget = body_budget(
        tmp_path_factory.getbasetemp(),
        memory=memory,
        memory_total=memory_total,
        spool_total=spool_total,
        replay=replay,
    )
    whole = b"".join(pieces)
    with RequestBody(PiecewiseBody(*pieces), None, budget) as body:
        for stop in stops:  # attempts that ended during the upload
            if body.is_replayable:
                assert whole.startswith(await read(body, stop))
            assert budget.memory_bytes <= memory_total
            assert budget.spool_bytes <= spool_total
        for _ in range(2):
            if body.is_replayable:
                assert await read(body) == whole
        if len(whole) > replay:
            assert not body.is_replayable or body.received_bytes <= replay
    assert is_untouched(budget)


@given(pieces=PIECES, memory=LIMITS)
async def test_a_body_within_its_limits_is_always_replayable(
    pieces: list[bytes], memory: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    budget = body_budget(tmp_path_factory.getbasetemp(), memory=memory)
    whole = b"".join(pieces)
    with RequestBody(PiecewiseBody(*pieces), len(whole), budget) as body:
        assert [await read(body) for _ in range(3)] == [whole] * 3
        assert body.is_replayable
        assert body.received_bytes == len(whole)
        assert budget.memory_bytes + budget.spool_bytes == len(whole)
        assert budget.memory_bytes <= memory
    assert is_untouched(budget)


async def test_a_large_spooled_body_is_read_back_whole(tmp_path: Path) -> None:
    pieces = [bytes([number]) * 100_000 for number in range(20)]
    with RequestBody(PiecewiseBody(*pieces), None, body_budget(tmp_path, memory=0)) as body:
        assert await read(body) == b"".join(pieces)
        assert await read(body) == b"".join(pieces)


async def test_a_stream_of_the_callers_connection_is_a_body_source(tmp_path: Path) -> None:
    stream = StreamReader(BaseProtocol(asyncio.get_running_loop()), 2**16, loop=asyncio.get_running_loop())
    stream.feed_data(b"hello ")
    with RequestBody(stream, None, body_budget(tmp_path)) as body:
        assert await read(body, 0) == b"hello "
        stream.feed_data(b"world")
        stream.feed_eof()
        assert body.rewind() == b"hello world"
        assert body.rewind() == b"hello world"
        assert await read(body) == b"hello world"


# --- all at once ------------------------------------------------------------------------------------------


async def test_a_body_that_has_arrived_is_read_in_one_piece(tmp_path: Path) -> None:
    with RequestBody(ArrivingBody(b"hel", b"lo", finished=True), 5, body_budget(tmp_path)) as body:
        assert [body.rewind(), body.rewind()] == [b"hello", b"hello"]
        assert body.is_replayable


async def test_a_spooled_body_is_streamed(tmp_path: Path) -> None:
    with RequestBody(ArrivingBody(b"hello", finished=True), 5, body_budget(tmp_path, memory=0)) as body:
        assert body.rewind() == b"hello"  # straight from the caller
        assert body.rewind() == b""
        assert await read(body) == b"hello"


async def test_a_body_that_outgrows_its_budget_loses_its_copy_and_is_still_read(tmp_path: Path) -> None:
    source = ArrivingBody(b"kept ")
    with RequestBody(source, None, body_budget(tmp_path, memory=5, spool_total=0)) as body:
        assert await read(body, 0) == b"kept "
        source.feed(b"and the rest")
        source.finish()
        before = body.is_replayable
        assert body.rewind() == b"kept and the rest"
        assert (before, body.is_replayable) == (True, False)


async def test_an_error_of_the_caller_is_raised(tmp_path: Path) -> None:
    source = ArrivingBody(b"some")
    source.break_off(ConnectionResetError("the caller has gone"))
    with RequestBody(source, None, body_budget(tmp_path)) as body:
        with pytest.raises(ConnectionResetError, match="caller"):
            await read(body)
        assert body.received_bytes == 4


# --- budgets ----------------------------------------------------------------------------------------------


async def test_a_body_of_too_large_a_length_is_never_copied(tmp_path: Path) -> None:
    budget = body_budget(tmp_path, replay=4)
    with RequestBody(ArrivingBody(b"hello", finished=True), 5, budget) as body:
        before = body.is_replayable  # nothing was read yet
        assert await read(body) == b"hello"
        assert (before, body.is_replayable) == (True, False)
        assert is_untouched(budget)


async def test_a_chunked_body_loses_its_copy_when_it_grows_too_large(tmp_path: Path) -> None:
    budget = body_budget(tmp_path, replay=6)
    with RequestBody(PiecewiseBody(b"four", b"more", b"and more"), None, budget) as body:
        assert await read(body) == b"fourmoreand more"
        assert not body.is_replayable
        assert is_untouched(budget)


async def test_bodies_share_memory_first_and_disk_next(tmp_path: Path) -> None:
    budget = body_budget(tmp_path, memory=10, memory_total=15, spool_total=12)
    with (
        RequestBody(ArrivingBody(b"x" * 10, finished=True), None, budget) as first,
        RequestBody(ArrivingBody(b"y" * 10, finished=True), None, budget) as second,
        RequestBody(ArrivingBody(b"z" * 10, finished=True), None, budget) as third,
    ):
        for body in (first, second, third):
            await read(body)
        assert (budget.memory_bytes, budget.spool_bytes) == (10, 10)
        assert [body.is_replayable for body in (first, second, third)] == [True, True, False]
        assert await read(second) == b"y" * 10
    assert is_untouched(budget)


# --- the spool file ---------------------------------------------------------------------------------------


async def test_the_spool_file_has_no_name_and_no_access_for_others(tmp_path: Path) -> None:
    with RequestBody(PiecewiseBody(b"a", b"b"), None, body_budget(tmp_path, memory=1)) as body:
        await read(body)
        assert names_in(tmp_path) == []
        (descriptor,) = spool_files(tmp_path)
        facts = os.fstat(descriptor)
        assert (facts.st_nlink, facts.st_size, stat.S_IMODE(facts.st_mode)) == (0, 2, 0o600)
    assert spool_files(tmp_path) == []


async def test_beyond_the_number_of_spool_files_a_body_is_read_but_not_replayable(tmp_path: Path) -> None:
    budget = body_budget(tmp_path, memory=0, files=1)
    with RequestBody(PiecewiseBody(b"a"), None, budget) as first:
        assert await read(first) == b"a"
        with RequestBody(PiecewiseBody(b"b"), None, budget) as second:
            assert await read(second) == b"b"
            assert (first.is_replayable, second.is_replayable) == (True, False)
            assert len(spool_files(tmp_path)) == budget.spool_files == 1
    with RequestBody(PiecewiseBody(b"c"), None, budget) as third:
        assert await read(third) == b"c"
        assert third.is_replayable
    assert is_untouched(budget)


async def test_without_the_spool_directory_a_body_is_read_but_not_replayable(tmp_path: Path) -> None:
    budget = body_budget(tmp_path / "gone", memory=1)
    with RequestBody(PiecewiseBody(b"a", b"b", b"c"), None, budget) as body:
        assert await read(body) == b"abc"
        assert not body.is_replayable
        assert is_untouched(budget)


@contextmanager
def files_no_larger_than(limit_bytes: int) -> Iterator[None]:
    """Simulates a full disk: writes beyond the limit fail."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_on_a_full_disk_a_body_is_read_but_not_replayable(tmp_path: Path) -> None:
    budget = body_budget(tmp_path, memory=0)
    with RequestBody(PiecewiseBody(b"abc", b"def"), None, budget) as body:
        with files_no_larger_than(5):
            assert await read(body, 0) == b"abc"
            before = body.is_replayable
            assert await read(body) == b"abcdef"  # only five bytes fit
        assert (before, body.is_replayable) == (True, False)
        assert spool_files(tmp_path) == []
        assert is_untouched(budget)
