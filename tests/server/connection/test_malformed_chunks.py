"""A malformed chunk gets an error response, also if a part of its body has gone upstream.

`tests/conformance` has all other kinds of malformed requests.
"""

import pytest

from support.proxy_harness import running_proxy
from support.raw_caller import request
from support.scripted_upstream import ScriptedUpstream

BAD_CHUNKS = {
    "size": b"zz\r\nabc\r\n",
    "sign": b"-3\r\nabc\r\n",
    "huge": b"fffffffffffffffffff\r\nabc",
    "too_long": b"3\r\nabcdef\r\n",
    "no_end": b"3\nabc\n",
}


@pytest.mark.parametrize("chunk", BAD_CHUNKS)
@pytest.mark.parametrize("when", ["at_once", "later"])
async def test_a_malformed_chunk_is_rejected_and_never_looks_like_the_end_of_the_body(
    chunk: str, when: str
) -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        head = request(b"POST", b"/x", b"Transfer-Encoding: chunked") + b"2\r\nok\r\n"
        if when == "at_once":
            await caller.send(head + BAD_CHUNKS[chunk])
        else:
            await caller.send(head)
            await upstream.next_request()
            await caller.send(BAD_CHUNKS[chunk])
        response = await caller.response()
        assert response.status == 400
        assert response.value(b"Connection") == b"close"
        assert await caller.read_to_end() == b""
        await proxy.check_idle()
        for exchange in upstream.requests:
            assert b"\r\n0\r\n" not in await exchange.read_to_end()
