"""Runs that calls share, and the reloads of a running proxy."""

import asyncio

import pytest

from nanonets_proxy.app.shared_runs import SharedRuns
from nanonets_proxy.core.keys.api_key import ApiKey
from nanonets_proxy.core.keys.key_records import FoundKey
from nanonets_proxy.keys.change_watch import ChangeWatch, NoChanges
from support.eventually import until
from support.proxy_harness import KEY, running_proxy
from support.scripted_upstream import ScriptedUpstream


class Work:
    """Work that ends when the test says so."""

    def __init__(self) -> None:
        self.runs = 0
        self.may_end = asyncio.Event()

    async def __call__(self) -> int:
        self.runs += 1
        number = self.runs
        await self.may_end.wait()
        if number == 3:
            raise ValueError(number)
        return number


async def test_calls_during_a_run_share_the_next_one() -> None:
    work = Work()
    call = SharedRuns(work)
    first = asyncio.create_task(call())
    await until(lambda: work.runs == 1)
    others = [asyncio.create_task(call()) for _ in range(100)]
    await asyncio.sleep(0)
    work.may_end.set()
    assert await first == 1
    assert await asyncio.gather(*others) == [2] * 100
    with pytest.raises(ValueError, match="3"):
        await call()
    assert await call() == 4


async def test_a_cancelled_call_does_not_end_the_run() -> None:
    work = Work()
    call = SharedRuns(work)
    first, second = asyncio.create_task(call()), asyncio.create_task(call())
    await until(lambda: work.runs == 1)
    third = asyncio.create_task(call())
    await asyncio.sleep(0)
    first.cancel()
    second.cancel()
    work.may_end.set()
    assert await third == 2


class CountingSource:
    """A source of the key that counts its readings."""

    name = "counting"

    def __init__(self) -> None:
        self.readings = 0

    def read(self) -> tuple[FoundKey, ...]:
        self.readings += 1
        return (FoundKey(ApiKey.parse(KEY, self.name), 0.0),)

    def watch(self) -> ChangeWatch:
        return NoChanges()


async def test_a_hundred_reloads_at_once_read_the_source_a_few_times() -> None:
    source = CountingSource()
    async with ScriptedUpstream() as upstream, running_proxy(upstream.origin, source) as proxy:
        await until(lambda: source.readings == 2)  # before the start, and when the watch exists
        results = await asyncio.gather(*(proxy.proxy.reload() for _ in range(100)))
        assert results == [None] * 100
        assert source.readings - 2 == 2
