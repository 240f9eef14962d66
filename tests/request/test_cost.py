"""The cost of a request: Python calls of one exchange, a figure that the machine's load does not change.

Lower a figure here when an exchange gets cheaper; raise it only with a reason in the commit. The figures count
calls in the product and its libraries. Calls of comprehensions are left out, since Python 3.12 makes none.
"""

import itertools
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
    "small GET": 65,
    "small GET with a usage ledger": 69,
    "small GET with new fields": 81,
    "poll of a document": 80,
    "POST of 1 KiB": 71,
    "POST of 64 KiB": 75,
    "response of 64 KiB": 65,
    "GET in a queue of eight": 103,
}
TOLERANCE = 0.05

WARM_UP = 120  # a pattern reads the heads of responses from the 101st on
COUNTED = 50

FIELDS = (b"User-Agent: python-requests/2.32.3", b"Accept-Encoding: gzip, deflate", b"Accept: */*")
SMALL = b'{"message":"Success","result":[]}'
SERIAL = b"0000"
"""A request with it has another number each time, so its header section is never equal to the last one."""
EXCHANGES = {
    "small GET": (request(b"GET", b"/api/v4/workflows", *FIELDS), SMALL),
    "small GET with a usage ledger": (request(b"GET", b"/api/v4/workflows", *FIELDS), SMALL),
    "small GET with new fields": (
        request(b"GET", b"/api/v4/workflows", *FIELDS, b"Traceparent: " + SERIAL),
        SMALL,
    ),
    "poll of a document": (request(b"GET", b"/api/v4/workflows/7/documents/8", *FIELDS), SMALL),
    "POST of 1 KiB": (request(b"POST", b"/api/v4/workflows", *FIELDS, body=b"x" * 1024), SMALL),
    "POST of 64 KiB": (request(b"POST", b"/api/v4/workflows", *FIELDS, body=b"x" * 64 * 1024), SMALL),
    "response of 64 KiB": (request(b"GET", b"/api/v4/workflows", *FIELDS), b"x" * 64 * 1024),
    "GET in a queue of eight": (request(b"GET", b"/api/v4/workflows", *FIELDS), SMALL),
}
CALLERS = {"GET in a queue of eight": 8}
"""The callers of an exchange; its requests wait for one place in flight. Any other exchange has one caller."""

_COUNTED_FOLDERS = (str(Path(nanonets_proxy.__file__).parent), str(Path(aiohttp.__file__).parents[1]))


class CallCounter:
    """Counts the Python calls in its block, with each resumption of a coroutine."""

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
async def test_an_exchange_takes_as_many_calls_as_before(kind: str, tmp_path: Path) -> None:
    settings = {"ledger": str(tmp_path / "usage.db")} if "ledger" in kind else {}
    sent, body = EXCHANGES[kind]
    count = CALLERS.get(kind, 1)
    serial = itertools.count()
    response = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    async def serve(peer: Peer) -> None:
        for _ in range((WARM_UP + COUNTED) * count):
            await peer.head()
            await peer.read_exactly(len(sent.partition(b"\r\n\r\n")[2]))
            await peer.send(response)
        await peer.read_to_end()

    async def send_all(callers: list[RawCaller]) -> None:
        for caller in callers:
            await caller.send(sent.replace(SERIAL, b"%04d" % next(serial)))
        for caller in callers:
            assert (await caller.response()).body == body

    with captured_log() as log:
        async with (
            RawUpstream(serve) as upstream,
            running_proxy(upstream.origin, pool_size=1, **settings) as proxy,
            AsyncExitStack() as stack,
        ):
            callers = [await stack.enter_async_context(await proxy.caller()) for _ in range(count)]
            for _ in range(WARM_UP):
                await send_all(callers)
            with CallCounter() as counter:
                for _ in range(COUNTED):
                    await send_all(callers)
        assert len(log.events("request")) == (WARM_UP + COUNTED) * count
    calls = counter.calls / (COUNTED * count)
    assert calls <= CALLS[kind] * (1 + TOLERANCE), f"{calls:.1f} calls, more than before: which calls are new?"
    assert calls >= CALLS[kind] * (1 - TOLERANCE), f"{calls:.1f} calls, fewer than before: lower the figure"
