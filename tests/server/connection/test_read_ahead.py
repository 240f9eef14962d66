"""A body that arrives with its head is read with it, while the total of such bytes is small."""

import pytest

from nanonets_proxy.server.connection.flow_control import MOST_AHEAD_BYTES
from support.eventually import until
from support.proxy_harness import running_proxy
from support.raw_caller import request
from support.scripted_upstream import OK, ScriptedUpstream

KIB = 1024
TOO_MANY = b"HTTP/1.1 429 No\r\nRetry-After: 600\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize("size", [1, 3 * KIB, 64 * KIB, 65 * KIB, 200 * KIB])
async def test_a_body_of_any_size_arrives_as_it_was_sent(size: int) -> None:
    body = bytes(number % 251 for number in range(size))
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        for _ in range(3):
            await caller.send(request(b"POST", b"/x", body=body))
            exchange = await upstream.next_request()
            await exchange.respond(OK)
            assert exchange.body == body
            assert (await caller.response()).status == 200


async def test_bytes_read_of_waiting_uploads_are_bounded_in_total() -> None:
    count, size = 120, 64 * KIB
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin, max_wait="1h") as proxy,
        proxy.callers(count) as callers,
    ):
        await callers[0].send(request(b"POST", b"/x", body=b"first"))
        await (await upstream.next_request()).respond(TOO_MANY)
        await until(lambda: proxy.waiting == 1)
        for caller in callers[1:]:
            await caller.send(request(b"POST", b"/x", body=bytes(size)))
        await until(lambda: proxy.waiting == count)
        # Once the shared room is used up, two KiB of each further upload.
        assert MOST_AHEAD_BYTES - 128 * KIB < proxy.unread_ahead_bytes <= MOST_AHEAD_BYTES + count * 2 * KIB
        assert proxy.unread_ahead_bytes < count * size / 3
    assert not proxy.unread_ahead_bytes
