"""Waits for admission in a waiting room, as a request does."""

import asyncio
from collections.abc import Callable

from nanonets_proxy.admission.waiting_room import WaitingRoom
from nanonets_proxy.core.ratelimit.tickets import Ticket


async def admitted(
    room: WaitingRoom, ticket: Ticket, now_s: float, on_wait: Callable[[], None] | None = None
) -> None:
    """Returns once the ticket is admitted. Raises RateLimited or ShuttingDown."""
    admission = room.enter(ticket, now_s, on_wait)
    if admission is not None:
        try:
            await admission
        except asyncio.CancelledError:
            room.leave(ticket)
            raise
