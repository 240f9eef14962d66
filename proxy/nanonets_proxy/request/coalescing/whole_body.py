"""Reads a response's body into memory, within the budget of all copies."""

from typing import Final

from nanonets_proxy.request.received import Received
from nanonets_proxy.upstream.body import BodyBudget

MAX_WHOLE_BYTES: Final = 256 * 1024
"""A larger body is not held."""

_ENDLESS: Final = b"text/event-stream"


def may_be_held(received: Received) -> bool:
    """Returns whether a body may be small enough, and has an end."""
    head = received.head
    return (head.body_length or 0) <= MAX_WHOLE_BYTES and not (head.content_type or b"").startswith(_ENDLESS)


async def read_whole(received: Received, budget: BodyBudget) -> tuple[bytes, bool]:
    """Returns the body as far as it was read, and whether that is all of it, held in memory.

    If it is, the reader must release its bytes in the budget. Raises as the connection does.
    """
    source, held, is_whole = received.connection, 0, received.connection.is_complete
    body = received.body_start + source.read_nowait()
    fits = False
    try:
        while (has_room := budget.reserve_memory(len(body) - held)) and not is_whole:
            held = len(body)
            piece = await source.read() if held <= MAX_WHOLE_BYTES else b""
            is_whole = source.is_complete or not piece
            body += piece + source.read_nowait()
        held = len(body) if has_room else held
        fits = has_room and len(body) <= MAX_WHOLE_BYTES
        return body, fits
    finally:
        if not fits:
            budget.memory_bytes -= held
