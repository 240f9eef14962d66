"""The request to stop the process, by a signal or by POST /quitquitquit."""

import asyncio
from typing import Final

from nanonets_proxy.aio.events import wait_at_most

QUIT: Final = "POST /quitquitquit"
REPLACED: Final = "restart"


class Shutdown:
    """Whether the process has been asked to stop, and whether the drain may still be delayed."""

    def __init__(self) -> None:
        self.by = ""
        """The signal's name, QUIT or REPLACED, whichever came first; empty before."""
        self.replaced = asyncio.Event()
        """Set when another process serves in place of this one."""
        self._requested = asyncio.Event()
        self._hurried = asyncio.Event()

    def request(self, by: str) -> None:
        """Asks the process to stop after its `drain_delay`."""
        self.by = self.by or by
        self._requested.set()

    def quit(self) -> None:
        """Asks the process to drain now, because no caller needs it any more."""
        self.request(QUIT)
        self._hurried.set()

    def finish(self) -> None:
        """Lets the process end once it has served what it has, because another one has replaced it."""
        self.by = self.by or REPLACED
        self.replaced.set()

    async def requested(self) -> None:
        """Waits for the first request to stop."""
        await self._requested.wait()

    async def delay(self, delay_s: float) -> None:
        """Waits for `delay_s`, or until `quit()`."""
        await wait_at_most(self._hurried, delay_s)
