"""Random bytes from either side, made from a corpus. FUZZ_EXAMPLES sets the number of examples per test.

For any input: each response is well-formed and is not a 500, each request that reaches the upstream is
unambiguous, and the next caller gets its own response. Add the input of each failure to the corpus.
"""

import asyncio
import os
import re
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Final

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conformance import corpus
from conformance.mutations import mutated
from nanonets_proxy.upstream.errors import UpstreamError
from nanonets_proxy.upstream.response_parser import ResponseParser, ResponseState
from support.eventually import WAIT_S
from support.proxy_harness import AUTHORIZATION, RunningProxy, running_proxy
from support.raw_caller import RawCaller, RawResponse, request
from support.scripted_upstream import OK, Exchange, ScriptedUpstream

REQUESTS: Final = corpus.read("requests")
RESPONSES: Final = corpus.read("responses")
_FIELD: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+: [^\x00-\x08\x0a-\x1f\x7f]*")
_REQUEST_LINE: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ (?:/[\x21-\x7e]*|\*) HTTP/1\.1")
_LIMITS: Final = {
    "keep_alive": "100ms",
    "head_timeout": "30ms",
    "idle_timeout": "30ms",
    "first_byte_timeout": "150ms",
    "log_level": "error",
}

fuzzing = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "100")),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


class ProxiedUpstream:
    """The proxy in front of an upstream that sends `response`, and then closes the connection if `ends`."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._stack = AsyncExitStack()
        self.upstream = ScriptedUpstream(self._respond)
        self.response = OK
        self.ends = False
        self.proxy: RunningProxy

    async def start(self) -> None:
        await self._stack.enter_async_context(self.upstream)
        self.proxy = await self._stack.enter_async_context(running_proxy(self.upstream.origin, **_LIMITS))

    async def stop(self) -> None:
        await self._stack.aclose()

    async def _respond(self, exchange: Exchange) -> None:
        await exchange.read_body()
        await exchange.send(OK if exchange.lines[0].startswith(b"GET /check ") else self.response)
        if self.ends and not exchange.lines[0].startswith(b"GET /check "):
            exchange.close()

    async def exchange(self, sent: bytes) -> list[bytes]:
        """Sends bytes and returns the heads of the responses until the connection ends or breaks off."""
        heads: list[bytes] = []
        async with await self.proxy.caller() as caller:
            await caller.send(sent + request(b"GET", b"/last", b"Connection: close"))
            try:
                while not heads or b"\r\nConnection: close\r\n" not in heads[-1]:
                    heads.append(await self._final(caller))
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
        return heads

    async def _final(self, caller: RawCaller) -> bytes:
        """Returns the head of the next final response, after reading its body by its framing."""
        head = await caller.head()
        while head.startswith(b"HTTP/1.1 1"):
            head = await caller.head()
        # The proxy serves requests in order, so this is the response to the last request that arrived.
        arrived = self.upstream.requests
        await _read_body(caller, head, to_head=bool(arrived) and arrived[-1].head.startswith(b"HEAD "))
        return head

    async def check_own_response(self) -> None:
        """Checks that another caller gets its own response."""
        async with asyncio.timeout(WAIT_S):
            while (response := await self._checked()) is None:
                pass
        assert (response.status, response.body) == (200, b"ok"), response
        await self.proxy.check_idle()

    async def _checked(self) -> RawResponse | None:
        """Returns the response to another caller; None if the machine was busy for longer than one of `_LIMITS`."""
        async with await self.proxy.caller() as caller:
            try:
                response = await caller.get(b"/check")
            except (ConnectionError, asyncio.IncompleteReadError):
                return None
        return None if response.status in (408, 504) else response


async def _read_body(caller: RawCaller, head: bytes, *, to_head: bool) -> None:
    lines = head[:-4].split(b"\r\n")
    assert re.fullmatch(rb"HTTP/1\.1 [2-9][0-9][0-9] [^\x00-\x08\x0a-\x1f\x7f]*", lines[0]), head
    for line in lines[1:]:
        assert _FIELD.fullmatch(line), head
    names = [line.partition(b":")[0].lower() for line in lines[1:]]
    assert names.count(b"content-length") + names.count(b"transfer-encoding") <= 1, head
    if to_head or lines[0][9:12] in (b"204", b"304"):
        return
    if b"content-length" in names:
        await caller.read(int(lines[1 + names.index(b"content-length")].partition(b":")[2]))
    elif b"transfer-encoding" in names:
        await caller._chunked()
    else:
        await caller.read_to_end()


@pytest.fixture
def proxied() -> Iterator[ProxiedUpstream]:
    setup = ProxiedUpstream()
    with setup.runner:
        setup.runner.run(setup.start())
        yield setup
        setup.runner.run(setup.stop())


def _check_request(exchange: Exchange) -> None:
    """Checks that a request that reached the upstream is unambiguous."""
    head = exchange.head
    assert _REQUEST_LINE.fullmatch(exchange.lines[0]), head
    for line in exchange.lines[1:]:
        assert _FIELD.fullmatch(line), head
    names = [line.partition(b":")[0].lower() for line in exchange.lines[1:]]
    assert names.count(b"host") == 1, head
    assert names[0] == b"host"
    assert [line for line in exchange.lines if line.lower().startswith(b"authorization:")] == [AUTHORIZATION]
    assert names.count(b"content-length") + names.count(b"transfer-encoding") <= 1, head
    assert not {b"connection", b"te", b"upgrade", b"trailer", b"keep-alive"} & set(names), head


def _try_request(proxied: ProxiedUpstream, sent: bytes) -> None:
    proxied.upstream.requests.clear()
    heads = proxied.runner.run(_exchange_and_check(proxied, sent))
    for exchange in proxied.upstream.requests:
        _check_request(exchange)
    for head in heads:
        assert not head.startswith(b"HTTP/1.1 500"), (sent, head)


async def _exchange_and_check(proxied: ProxiedUpstream, sent: bytes) -> list[bytes]:
    heads = await proxied.exchange(sent)
    await proxied.check_own_response()
    return heads


def test_every_request_of_the_corpus_gets_a_well_formed_response(proxied: ProxiedUpstream) -> None:
    for sent in REQUESTS:
        _try_request(proxied, sent)


@fuzzing
@given(sent=mutated(REQUESTS))
def test_any_request_gets_a_well_formed_response(proxied: ProxiedUpstream, sent: bytes) -> None:
    _try_request(proxied, sent)


def _try_response(proxied: ProxiedUpstream, response: bytes, *, ends: bool, method: bytes) -> None:
    proxied.response, proxied.ends = response, ends
    proxied.runner.run(_exchange_and_check(proxied, request(method, b"/x")))


def test_every_response_of_the_corpus_is_relayed_or_becomes_a_clean_error(proxied: ProxiedUpstream) -> None:
    for response in RESPONSES:
        _try_response(proxied, response, ends=True, method=b"GET")


@fuzzing
@given(response=mutated(RESPONSES), ends=st.booleans(), method=st.sampled_from([b"GET", b"HEAD", b"POST"]))
def test_any_response_is_relayed_or_becomes_a_clean_error(
    proxied: ProxiedUpstream, response: bytes, ends: bool, method: bytes
) -> None:
    _try_response(proxied, response, ends=ends, method=method)


def _parsed(pieces: list[bytes], *, is_head: bool) -> tuple[object, ...]:
    """Returns the result of parsing, and what the parser had passed on before an error."""
    parser = ResponseParser(is_head=is_head)
    error: type[UpstreamError] | None = None
    try:
        for piece in pieces:
            parser.feed(piece)
        parser.end_of_input()
    except UpstreamError as raised:
        error = type(raised)
    shown = (parser.head.status, parser.head.headers) if parser.state is not ResponseState.HEAD else None
    return (
        error,
        parser.state,
        shown,
        parser.take_body(),
        parser.trailers if parser.state is ResponseState.COMPLETE else None,
    )


@settings(parent=fuzzing, max_examples=2 * fuzzing.max_examples)
@given(data=mutated(RESPONSES), cuts=st.lists(st.integers(1, 400), max_size=4), is_head=st.booleans())
def test_the_result_does_not_depend_on_how_a_response_is_cut(data: bytes, cuts: list[int], is_head: bool) -> None:
    whole = _parsed([data], is_head=is_head)
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    pieces = [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]
    assert _parsed([piece for piece in pieces if piece], is_head=is_head) == whole
    assert _parsed([data[at : at + 1] for at in range(len(data))], is_head=is_head) == whole
