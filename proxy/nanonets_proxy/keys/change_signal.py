"""A signal that wakes all tasks that wait for it, and can be sent again and again."""

import asyncio


class ChangeSignal:
    """Create and use it in one event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiters: set[asyncio.Future[None]] = set()

    def notify(self) -> None:
        """Wakes every task that waits now."""
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            _finish(waiter)

    async def wait(self, timeout_s: float | None = None) -> None:
        """Waits for the next `notify`, `timeout_s` at most."""
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiters.add(waiter)
        timer = None if timeout_s is None else self._loop.call_later(timeout_s, _finish, waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)
            if timer is not None:
                timer.cancel()


def _finish(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)
