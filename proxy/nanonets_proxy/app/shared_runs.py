"""Lets calls share runs of the same work: of however many calls, one run goes on, and at most one waits."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class SharedRuns(Generic[T]):
    """Calls `work`. Calls during a run share the next one, because the run may have begun before their cause."""

    def __init__(self, work: Callable[[], Awaitable[T]]) -> None:
        self._work = work
        self._running: asyncio.Task[T] | None = None
        self._next: asyncio.Task[T] | None = None

    async def __call__(self) -> T:
        """Returns the result of a run that begins now or later. A cancelled call does not end the run."""
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run(None))
            return await asyncio.shield(self._running)
        if self._next is None:
            self._next = asyncio.create_task(self._run(self._running))
        return await asyncio.shield(self._next)

    async def _run(self, earlier: "asyncio.Task[T] | None") -> T:
        if earlier is not None:
            await asyncio.wait([earlier])
            self._running, self._next = self._next, None
        return await self._work()
