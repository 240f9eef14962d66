"""Messages to a server that confirms them late, wrongly or never."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from nanonets_proxy.admission.fleet.bus import publisher as module
from nanonets_proxy.admission.fleet.bus.publisher import Publisher
from nanonets_proxy.admission.fleet.bus.wire import Wire
from nanonets_proxy.core.ratelimit.fleet import lates
from support import eventually
from support.gate.fake_redis import FakeRedis, fake_redis


class Told:
    """What the publisher told."""

    def __init__(self) -> None:
        self.unheard: list[str] = []
        self.faults: list[str] = []
        self.times_slow = 0

    def fault(self, error: Exception) -> None:
        self.faults.append(str(error))

    def slow(self) -> None:
        self.times_slow += 1


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[FakeRedis, Publisher, Told]]:
    told = Told()
    async with fake_redis() as redis:
        publisher = Publisher(redis.dial, told.unheard.append, told.fault, told.slow)
        await publisher.start()
        try:
            yield redis, publisher, told
        finally:
            await publisher.stop()


async def test_a_message_does_not_wait_for_the_confirmation_of_an_earlier_one() -> None:
    async with connected() as (redis, publisher, told):
        publisher.send("a", b"to:a", b"first")
        await redis.has_got(b"first")
        publisher.send("b", b"to:b", b"second")
        await redis.has_got(b"second")
        assert publisher.is_sending
        redis.respond(b":1\r\n:0\r\n")
        await eventually.until(lambda: not publisher.is_sending)
        assert told.unheard == ["b"]
        assert told.faults == []


async def test_an_error_for_one_message_does_not_lose_the_next_one() -> None:
    async with connected() as (redis, publisher, told):
        publisher.send("a", b"to:a", b"first")
        publisher.send("b", b"to:b", b"second")
        await redis.has_got(b"second")
        redis.respond(b"-NOPERM no\r\n:0\r\n")
        await eventually.until(lambda: not publisher.is_sending)
        assert told.unheard == ["b"]
        assert len(told.faults) == 1


@pytest.mark.parametrize("closes", [False, True])
async def test_a_server_without_a_response_is_a_fault(monkeypatch: pytest.MonkeyPatch, *, closes: bool) -> None:
    monkeypatch.setattr(module, "CONFIRM_S", 60.0 if closes else 0.01)
    async with connected() as (redis, publisher, told):
        publisher.send("a", b"to:a", b"first")
        await redis.has_got(b"first")
        if closes:
            redis.close()
        await eventually.until(lambda: len(told.faults) == 1)
        assert not publisher.is_sending
        assert told.unheard == []


async def test_a_message_after_the_server_closed_the_idle_connection_goes_over_a_new_one() -> None:
    """As Redis does with its setting `timeout`."""
    async with connected() as (redis, publisher, told):
        publisher.send("a", b"to:a", b"first")
        await redis.has_got(b"first")
        redis.respond(b":1\r\n")
        await eventually.until(lambda: not publisher.is_sending)
        idle = redis.writer
        assert idle is not None
        idle.close()
        await idle.wait_closed()
        await eventually.until(lambda: publisher._wire is None)
        redis.ended.clear()
        publisher.send("b", b"to:b", b"second")
        await redis.has_got(b"second")
        redis.respond(b":0\r\n")
        await eventually.until(lambda: not publisher.is_sending)
        assert told.unheard == ["b"]
        assert told.faults == []


async def test_a_new_connection_that_fails_is_one_fault_and_ends_the_publisher() -> None:
    async with connected() as (_, publisher, told):
        assert publisher._wire is not None
        publisher._wire.close()
        publisher._on_lost(ConnectionResetError("idle"))

        async def fail() -> Wire:
            raise ConnectionRefusedError("nobody listens")

        publisher._connect = fail
        publisher.send("a", b"to:a", b"first")
        publisher.send("b", b"to:b", b"second")
        await eventually.until(lambda: bool(told.faults))
        publisher.send("c", b"to:c", b"third")
        assert told.faults == ["nobody listens"]
        assert not publisher.is_sending


async def test_a_confirmation_of_nothing_ends_the_connection() -> None:
    """The confirmations that follow would be taken for those of other messages."""
    async with connected() as (redis, publisher, told):
        publisher.send("a", b"to:a", b"first")
        await redis.has_got(b"first")
        redis.respond(b":1\r\n:0\r\n")
        await redis.ended.wait()
        assert told.unheard == []


async def test_a_response_in_another_protocol_is_a_fault() -> None:
    async with connected() as (redis, publisher, told):
        publisher.send("a", b"to:a", b"first")
        await redis.has_got(b"first")
        redis.respond(b"HTTP/1.1 400 Bad Request\r\n")
        await eventually.until(lambda: len(told.faults) == 1)
        assert not publisher.is_sending


async def test_a_process_that_stood_still_reads_the_confirmation_before_it_gives_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A timer of a late event loop may come before what has arrived."""
    monkeypatch.setattr(module, "CONFIRM_S", 0.0)
    monkeypatch.setattr(module, "READ_S", 60.0)
    async with connected() as (redis, publisher, told):
        publisher.send("a", b"to:a", b"first")
        await redis.has_got(b"first")
        assert publisher.is_sending
        redis.respond(b":1\r\n")
        await eventually.until(lambda: not publisher.is_sending)
        assert told.faults == []


async def test_before_the_end_messages_are_confirmed_or_given_up() -> None:
    async with connected() as (redis, publisher, told):
        publisher.send("a", b"to:a", b"first")
        await publisher.flush(0.01)
        assert publisher.is_sending
        flushing = asyncio.ensure_future(publisher.flush(60.0))
        await redis.has_got(b"first")
        redis.respond(b":0\r\n")
        await flushing
        assert told.unheard == ["a"]


async def _send_each_after_the_confirmation(redis: FakeRedis, publisher: Publisher, count: int) -> None:
    for number in range(count):
        publisher.send("a", b"to:a", b"%d;" % number)
        await redis.has_got(b"%d;" % number)
        redis.respond(b":1\r\n")
        await eventually.until(lambda: not publisher.is_sending)
    redis.got = b""


@pytest.mark.parametrize(("late_s", "slow"), [(-1.0, 1), (60.0, 0)])
async def test_as_many_late_confirmations_in_a_row_are_told(
    monkeypatch: pytest.MonkeyPatch, late_s: float, slow: int
) -> None:
    """Messages of this replica may go over a slow connection, while commands and other messages do not."""
    async with connected() as (redis, publisher, told):
        monkeypatch.setattr(lates, "LATE_S", late_s)
        await _send_each_after_the_confirmation(redis, publisher, 5)
        assert told.times_slow == 0
        await _send_each_after_the_confirmation(redis, publisher, 1)
        assert told.times_slow == slow


async def test_a_confirmation_in_time_begins_the_row_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    async with connected() as (redis, publisher, told):
        for late_s, count in ((-1.0, 5), (60.0, 1), (-1.0, 5)):
            monkeypatch.setattr(lates, "LATE_S", late_s)
            await _send_each_after_the_confirmation(redis, publisher, count)
        assert told.times_slow == 0


async def test_messages_that_were_late_together_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server stood still for a moment."""
    async with connected() as (redis, publisher, told):
        monkeypatch.setattr(lates, "LATE_S", -1.0)
        for number in range(20):
            publisher.send("a", b"to:a", b"%d;" % number)
        await redis.has_got(b"19;")
        redis.respond(b":1\r\n" * 20)
        await eventually.until(lambda: not publisher.is_sending)
        assert told.times_slow == 0
