"""Looks names of hosts up again and again, and never one name twice at the same time.

The event loop looks all names up in a few threads; uvloop uses two. While a name server does not answer, a look-up
keeps its thread for 10 s or more, also after its caller has given up. If a name were looked up with each attempt to
connect, all other names, such as the upstream's, would soon wait behind it.
"""

import asyncio
import socket
from functools import partial

from nanonets_proxy.aio.daemon_thread import in_daemon_thread


class LookUps:
    """Look-ups of one user. Each name has a thread of its own while it is looked up."""

    def __init__(self) -> None:
        self._running: dict[str, asyncio.Task[object]] = {}

    async def wait(self, host: str, patience_s: float) -> None:
        """Waits until a name has been looked up. The system may remember it for a moment.

        Raises OSError if the name is not known, TimeoutError after `patience_s`, and NoThread.
        """
        running = self._running.get(host)
        if running is None:
            look_up = partial(socket.getaddrinfo, host, None, type=socket.SOCK_STREAM)
            running = self._running[host] = asyncio.ensure_future(in_daemon_thread(look_up))
            running.add_done_callback(partial(self._ended, host))
        try:
            async with asyncio.timeout(patience_s):
                await asyncio.shield(running)
        except TimeoutError:
            raise TimeoutError(f"the look-up of the name {host} takes longer than {patience_s:g} s") from None

    def _ended(self, host: str, look_up: "asyncio.Task[object]") -> None:
        del self._running[host]
        if not look_up.cancelled():
            look_up.exception()  # perhaps nobody waits for it any more
