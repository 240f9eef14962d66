"""What a request costs: Python calls of one exchange, which no load of the machine changes.

A number here is lowered when something got cheaper, and raised only with a reason in the commit. Calls are of
the product and of the libraries below it; those of comprehensions are left out, which Python 3.12 has no more.
"""

import sys
from contextlib import AsyncExitStack
from pathlib import Path
from types import FrameType
from typing import Any, Self

import aiohttp
import pytest

import nanonets_proxy
from support.log_capture import captured_log
from support.proxy_harness import running_proxy
from support.raw_caller import RawCaller, request
from support.raw_upstream import Peer, RawUpstream

CALLS = {
    "small GET": 67,
    "POST of 1 KiB": 77,
    "POST of 64 KiB": 78,
    "reply of 64 KiB": 77,
    "GET in a line of eight": 88,
}
TOLERANCE = 0.05

WARM_UP = 20
COUNTED = 50

FIELDS = (b"User-Agent: python-requests/2.32.3", b"Accept-Encoding: gzip, deflate", b"Accept: */*")
SMALL = b'{"message":"Success","result":[]}'
EXCHANGES = {
    "small GET": (request(b"GET", b"/api/v4/workflows", *FIELDS), SMALL),
    "POST of 1 KiB": (request(b"POST", b"/api/v4/workflows", *FIELDS, body=b"x" * 1024), SMALL),
    "POST of 64 KiB": (request(b"POST", b"/api/v4/workflows", *FIELDS, body=b"x" * 64 * 1024), SMALL),
    "reply of 64 KiB": (request(b"GET", b"/api/v4/workflows", *FIELDS), b"x" * 64 * 1024),
    "GET in a line of eight": (request(b"GET", b"/api/v4/workflows", *FIELDS), SMALL),
}
CALLERS = {"GET in a line of eight": 8}
"""There is one place in flight; of the others one caller asks, and need not wait."""

_COUNTED_FOLDERS = (str(Path(nanonets_proxy.__file__).parent), str(Path(aiohttp.__file__).parents[1]))


class CallCounter:
    """Counts Python calls, resumed coroutines among them, in the block."""

    def __init__(self) -> None:
        self.calls = 0

    def __enter__(self) -> Self:
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _note(self, frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(_COUNTED_FOLDERS) and code.co_name[0] != "<":
            self.calls += 1


@pytest.mark.parametrize("kind", EXCHANGES)
async def test_an_exchange_takes_no_more_calls_than_it_did(kind: str) -> None:
    sent, body = EXCHANGES[kind]
    count = CALLERS.get(kind, 1)
    response = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    async def serve(peer: Peer) -> None:
        for _ in range((WARM_UP + COUNTED) * count):
            await peer.head()
            await peer.read_exactly(len(sent.partition(b"\r\n\r\n")[2]))
            await peer.send(response)
        await peer.read_to_end()

    async def all_ask(callers: list[RawCaller]) -> None:
        for caller in callers:
            await caller.send(sent)
        for caller in callers:
            assert (await caller.response()).body == body

    with captured_log() as log:
        async with (
            RawUpstream(serve) as upstream,
            running_proxy(upstream.origin, pool_size=1) as proxy,
            AsyncExitStack() as stack,
        ):
            callers = [await stack.enter_async_context(await proxy.caller()) for _ in range(count)]
            for _ in range(WARM_UP):
                await all_ask(callers)
            with CallCounter() as counter:
                for _ in range(COUNTED):
                    await all_ask(callers)
        assert len(log.events("request")) == (WARM_UP + COUNTED) * count
    calls = counter.calls / (COUNTED * count)
    assert calls <= CALLS[kind] * (1 + TOLERANCE), f"{calls:.1f} calls: what was added?"
    assert calls >= CALLS[kind] * (1 - TOLERANCE), f"{calls:.1f} calls: it got cheaper; write the new number down"
