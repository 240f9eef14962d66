"""Events: a wait with a time limit, and a signal that can be sent again and again."""

import asyncio
import contextlib


async def wait_at_most(event: asyncio.Event, timeout_s: float | None) -> None:
    """Waits for an event, but no longer than `timeout_s`; None: as long as it takes."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()


class ChangeSignal:
    """Wakes all tasks that wait for it. Use it in one event loop."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def notify(self) -> None:
        """Wakes every task that waits now."""
        self._event.set()
        self._event.clear()

    async def wait(self, timeout_s: float | None = None) -> None:
        """Waits for the next `notify`, `timeout_s` at most."""
        await wait_at_most(self._event, timeout_s)
