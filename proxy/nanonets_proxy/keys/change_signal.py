"""A signal that wakes all tasks that wait for it, and can be sent again and again."""

import asyncio
import contextlib


class ChangeSignal:
    """Use it in one event loop."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def notify(self) -> None:
        """Wakes every task that waits now."""
        self._event.set()
        self._event.clear()

    async def wait(self, timeout_s: float | None = None) -> None:
        """Waits for the next `notify`, `timeout_s` at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
