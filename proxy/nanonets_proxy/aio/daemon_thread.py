"""Runs blocking calls, such as reading a key's source or the settings, each in a daemon thread of its own.

A program cannot exit before the threads of the event loop's default executor end. A store that hangs, or a file on
a dead network share, must not delay the exit.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


class NoThread(Exception):
    """No thread can start now, because the memory or the number of threads is limited."""

    def __init__(self) -> None:
        super().__init__("no thread could be started")


def start_daemon_thread(function: Callable[[], None], name: str) -> threading.Thread:
    """Runs `function` in a daemon thread of its own. Raises NoThread."""
    thread = threading.Thread(target=function, name=name, daemon=True)
    try:
        thread.start()
    except (RuntimeError, MemoryError):
        raise NoThread from None
    return thread


async def in_daemon_thread(function: Callable[[], Result]) -> Result:
    """Returns or raises what `function` does. If this coroutine is cancelled, the thread still runs to its end.

    Raises NoThread, and does not call `function` then.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def deliver(result: Result | None, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]  # None only where Result is None

    def run() -> None:
        result, error = None, None
        try:
            result = function()
        except BaseException as caught:  # noqa: BLE001 - the awaiting coroutine raises it
            error = caught
        with contextlib.suppress(RuntimeError):  # the loop is closed by now
            loop.call_soon_threadsafe(deliver, result, error)

    start_daemon_thread(run, "reading")
    return await future
