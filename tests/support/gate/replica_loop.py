"""The event loop as one replica sees it: with a clock of its own, and with moments in which it stands still."""

import asyncio
import weakref
from collections.abc import Callable, Coroutine
from typing import Any


class _Timer:
    """A timer of one replica, as `asyncio.TimerHandle`."""

    def __init__(self, act: Callable[..., object], args: tuple[Any, ...]) -> None:
        self._act, self._args = act, args
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True

    def run(self) -> None:
        if not self.is_cancelled:
            self._act(*self._args)


class ReplicaLoop:
    """Passes calls on to the loop that all replicas share. While the process stands still, nothing of it runs."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock_off_s: float = 0.0) -> None:
        self._loop = loop
        self._clock_off_s = clock_off_s
        self._stands_until_s = 0.0
        self.tasks: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
        self._kept: list[_Timer] = []

    def stand_still(self, for_s: float) -> None:
        """Stops the process, as SIGSTOP or a busy machine does. Timers and messages wait in their order."""
        until_s = self._loop.time() + for_s
        if until_s > self._stands_until_s:
            self._stands_until_s = until_s
            self._loop.call_at(until_s, self._go_on, until_s)

    def suspend(self, for_s: float) -> None:
        """Stops the machine of the process, with its monotonic clock."""
        self.stand_still(for_s)
        self._clock_off_s -= for_s

    def _go_on(self, until_s: float) -> None:
        if until_s == self._stands_until_s:  # a timer may be early by a rounding error
            self._stands_until_s = 0.0
        while self._kept and self._loop.time() >= self._stands_until_s:
            self._kept.pop(0).run()

    @property
    def runs(self) -> bool:
        """Whether the process does not stand still."""
        return not self._kept and self._loop.time() >= self._stands_until_s

    async def awake(self) -> None:
        """Waits until the process runs."""
        while (left_s := self._stands_until_s - self._loop.time()) > 0:  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(left_s)

    def deliver(self, act: Callable[..., object], *args: Any) -> None:
        """Calls `act` now, or once the process runs."""
        self._run(_Timer(act, args))

    def _run(self, timer: _Timer) -> None:
        if self.runs:
            timer.run()
        else:
            self._kept.append(timer)

    # --- as asyncio.AbstractEventLoop -----------------------------------------------------------------

    def time(self) -> float:
        return self._loop.time() + self._clock_off_s

    def call_at(self, at_s: float, act: Callable[..., object], *args: Any) -> _Timer:
        timer = _Timer(act, args)
        self._loop.call_at(at_s - self._clock_off_s, self._run, timer)
        return timer

    def call_later(self, wait_s: float, act: Callable[..., object], *args: Any) -> _Timer:
        return self.call_at(self.time() + wait_s, act, *args)

    def call_soon(self, act: Callable[..., object], *args: Any) -> _Timer:
        timer = _Timer(act, args)
        self._loop.call_soon(self._run, timer)
        return timer

    def create_future(self) -> "asyncio.Future[Any]":
        return self._loop.create_future()

    def create_task(self, coroutine: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        task = self._loop.create_task(coroutine)
        self.tasks.add(task)
        return task
