"""How slowly a body may arrive, in virtual time."""

import asyncio
import math
from types import SimpleNamespace

import pytest

from nanonets_proxy.errors import CallerTooSlow
from nanonets_proxy.server.connection.body_stream import BodyStream
from nanonets_proxy.server.connection.body_times import BodyTimes
from nanonets_proxy.server.connection.caller_body import CallerBody
from nanonets_proxy.server.connection.idle_timer import StallTimer
from support.gate.virtual_loop import run_virtually

HOUR_S = 3600.0


async def feed(body: BodyStream, pieces: int, size: int, every_s: float) -> None:
    """Feeds so many pieces of `size` bytes, each after `every_s`, and ends the body."""
    for _ in range(pieces):
        await asyncio.sleep(every_s)
        body.feed(b"x" * size)
    body.finish()


async def read(times: BodyTimes, pieces: int, size: int, every_s: float) -> int:
    """Returns the length of a body that arrives in pieces. Raises CallerTooSlow."""
    flow = SimpleNamespace(open_wide=lambda: None, hold_back=lambda: None, let_go=lambda: None)
    stream = BodyStream(flow)
    request = SimpleNamespace(body=stream, connection=SimpleNamespace(flow=flow, transport=None))
    body = CallerBody(request, times, expect_continue=False)
    feeding = asyncio.create_task(feed(stream, pieces, size, every_s))
    length = 0
    try:
        while piece := await body.readany():
            length += len(piece)
    finally:
        feeding.cancel()
    return length


@pytest.mark.parametrize(("min_rate_bytes_s", "size"), [(1024, 8000), (0, 1)])
def test_a_body_above_the_minimum_rate_may_take_many_periods(min_rate_bytes_s: int, size: int) -> None:
    times = BodyTimes(60.0, HOUR_S, min_rate_bytes_s)
    assert run_virtually(read(times, pieces=60, size=size, every_s=7.0)) == 60 * size


def test_a_body_below_the_minimum_rate_is_too_slow() -> None:
    with pytest.raises(CallerTooSlow, match="under 1024 bytes per second for 30 s"):
        run_virtually(read(BodyTimes(60.0, HOUR_S, 1024), pieces=60, size=7000, every_s=7.0))


@pytest.mark.parametrize("times", [BodyTimes(6.0, HOUR_S, 0), BodyTimes(math.inf, 100.0, 0)])
def test_a_body_that_pauses_or_lasts_for_too_long_is_too_slow(times: BodyTimes) -> None:
    with pytest.raises(CallerTooSlow, match="did not arrive in time"):
        run_virtually(read(times, pieces=60, size=7000, every_s=7.0))


async def ends_after_s(pieces: int) -> float:
    """Returns when a timer of 10 s, and of 60 s in all, ends a body of which a piece comes every 7 s."""
    loop, body, ended = asyncio.get_running_loop(), SimpleNamespace(received_bytes=0), asyncio.Event()
    began_s = loop.time()
    StallTimer(loop, body, stall_s=10.0, total_s=60.0, on_stall=ended.set)
    for _ in range(pieces):
        await asyncio.sleep(7.0)
        body.received_bytes += 1
    await ended.wait()
    return loop.time() - began_s


@pytest.mark.parametrize(("pieces", "ends_s"), [(0, 10.0), (5, 50.0), (8, 60.0)])
def test_each_piece_gives_a_body_that_is_skipped_more_time_but_not_without_end(pieces: int, ends_s: float) -> None:
    assert run_virtually(ends_after_s(pieces)) == pytest.approx(ends_s)
