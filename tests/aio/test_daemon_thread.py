"""Blocking calls in daemon threads of their own."""

import asyncio
import threading

import pytest

from nanonets_proxy.aio.daemon_thread import NoThread, in_daemon_thread


async def test_the_result_comes_from_a_daemon_thread() -> None:
    assert await in_daemon_thread(lambda: threading.current_thread().daemon)
    assert await in_daemon_thread(lambda: threading.current_thread() is not threading.main_thread())


async def test_an_error_is_raised_in_the_coroutine() -> None:
    def fail() -> None:
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        await in_daemon_thread(fail)


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), MemoryError()])
async def test_it_says_so_if_no_thread_can_start(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def refuse(_: threading.Thread) -> None:
        raise error

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(NoThread, match="no thread could be started"):
        await in_daemon_thread(lambda: None)


async def test_a_cancelled_coroutine_does_not_wait_for_its_thread() -> None:
    started, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def block() -> None:
        started.set()
        may_end.wait()
        ended.set()

    task = asyncio.ensure_future(in_daemon_thread(block))
    assert await asyncio.to_thread(started.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not ended.is_set()
    may_end.set()
    assert ended.wait(10)


def test_a_thread_may_outlive_its_event_loop() -> None:
    may_end, threads = threading.Event(), []

    def block() -> None:
        threads.append(threading.current_thread())
        may_end.wait()

    async def abandon() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(in_daemon_thread(block), 0.05)

    asyncio.run(abandon())
    may_end.set()
    (thread,) = threads
    thread.join(10)
    assert not thread.is_alive()
