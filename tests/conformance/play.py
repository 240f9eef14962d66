"""Plays a case between two sockets. Raises Failed at the first step that does not happen."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from conformance.steps import (
    OK,
    Again,
    Case,
    HalfClose,
    Receive,
    ReceiveBody,
    Respond,
    See,
    SeeBroken,
    SeeBytes,
    SeeEnd,
    SeeInterim,
    SeeStart,
    Send,
    Step,
    UpstreamCloses,
    UpstreamEnded,
    UpstreamResets,
    get,
)
from support.raw_caller import RawCaller, RawResponse
from support.scripted_upstream import Exchange, ScriptedUpstream

T = TypeVar("T")
_SHOWN_BYTES = 200


class Failed(AssertionError):
    """A step did not happen. The message names the step and the outcome instead."""


class Stage:
    """One case in progress: the caller's connection, the upstream, and the upstream's last request."""

    def __init__(self, caller: RawCaller, upstream: ScriptedUpstream, *, ours: bool, patience_s: float) -> None:
        self._caller = caller
        self._upstream = upstream
        self._ours = ours
        self._patience_s = patience_s
        self._authority = upstream.origin.authority.encode()
        self._exchange: Exchange | None = None
        self._received = len(upstream.requests)
        self._seen: RawResponse | None = None

    async def play(self, case: Case) -> None:
        try:
            for step in case.steps:
                try:
                    async with asyncio.timeout(self._patience_s):
                        await self._step(step)
                except (TimeoutError, OSError, EOFError, ValueError, AssertionError) as error:
                    raise Failed(f"{step!r:.300}: {type(error).__name__} {error!s:.400}") from error
            self._check_nothing_more()
        finally:
            for exchange in self._upstream.requests:
                exchange.close()

    def _check_nothing_more(self) -> None:
        more = self._upstream.requests[self._received :]
        if more:
            raise Failed(f"reached the upstream: {more[0].head[:_SHOWN_BYTES]!r}")

    async def _step(self, step: Step) -> None:
        match step:
            case Send(data):
                await self._caller.send(self._with_authority(data))
            case HalfClose():
                self._caller.writer.write_eof()
            case Receive():
                await self._receive(step)
            case ReceiveBody(body):
                _equal(await self._last.read_body(), body)
            case Respond(data):
                await self._last.send(self._with_authority(data))
            case UpstreamCloses():
                self._last.close()
            case UpstreamResets():
                self._last.reset()
            case UpstreamEnded():
                await self._last.read_to_end(self._patience_s)
            case See():
                self._seen = await self._alone(self._caller.response(to_head=step.to_head))
                self._check(step, self._seen)
            case SeeInterim(status, fields):
                head = await self._alone(self._caller.head())
                _equal(int(head[9:12]), status)
                _equal(head[:-4].split(b"\r\n")[1:], list(fields))
            case SeeBytes(data):
                _equal(await self._alone(self._caller.read(len(data))), data)
            case SeeStart(data):
                await self._alone(self._caller.head())
                _equal(await self._alone(self._caller.read(len(data))), data)
            case SeeEnd():
                _equal(await self._alone(self._caller.read_to_end()), b"")
                if self._ours and self._seen is not None:  # RFC 9112 §9.6
                    _equal(self._seen.values(b"Connection"), [b"close"])
            case SeeBroken(status):
                await self._see_broken(status)
            case Again():
                await self._again()

    @property
    def _last(self) -> Exchange:
        assert self._exchange is not None, "no request has arrived yet"
        return self._exchange

    def _with_authority(self, data: bytes) -> bytes:
        return data.replace(b"@UP@", self._authority)

    async def _alone(self, awaited: Awaitable[T]) -> T:
        """Awaits the caller's next bytes. Raises Failed if an unexpected request reaches the upstream meanwhile."""
        waiting = asyncio.ensure_future(awaited)
        try:
            while not waiting.done():
                await asyncio.wait([waiting], timeout=0.02)
                if not waiting.done():
                    self._check_nothing_more()
        finally:
            waiting.cancel()  # has no effect on a finished task
            await asyncio.gather(waiting, return_exceptions=True)
        return waiting.result()

    async def _receive(self, step: Receive) -> None:
        if self._exchange is not None:
            self._exchange.release()  # its connection may carry the next request
        exchange = self._exchange = await self._upstream.next_request()
        self._received += 1
        lines = exchange.lines
        _equal(lines[0], self._with_authority(step.line))
        _in_order([self._with_authority(line) for line in step.fields], [_with_space(line) for line in lines[1:]])
        names = {line.partition(b":")[0].lower() for line in lines[1:]}
        for name in step.without:
            if name.lower() in names:
                raise Failed(f"has a field {name!r}")
        if step.body is not None:
            _equal(await exchange.read_body(), step.body)

    def _check(self, step: See, response: RawResponse) -> None:
        if self._ours and step.ours is not None:
            _equal(response.status, step.ours)
        elif response.status not in step.statuses:
            raise Failed(f"{response.head[:_SHOWN_BYTES]!r}")
        if step.line is not None:
            _equal(response.status_line, step.line)
        _in_order([self._with_authority(line) for line in step.fields], response.head.split(b"\r\n")[1:])
        for name in step.has:
            _equal(len(response.values(name)), 1)
        names = {name.lower() for name, _ in response.fields}
        for name in step.without:
            if name.lower() in names:
                raise Failed(f"has a field {name!r}: {response.head[:_SHOWN_BYTES]!r}")
        if step.body is not None:
            _equal(response.body, step.body)
        if step.trailers:
            _equal(response.trailers, step.trailers)
        if self._ours and step.code is not None:
            _equal(response.json()["code"], step.code)
            _equal(len(response.values(b"Proxy-Status")), 1)

    async def _see_broken(self, status: int) -> None:
        """Accepts a lost head, because a reset after the head may discard the head."""
        try:
            response = await self._alone(self._caller.response())
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        if response.values(b"content-length") or response.values(b"transfer-encoding"):
            if response.status == status:
                raise Failed(f"looks complete: {response.head[:_SHOWN_BYTES]!r}")
            return  # an error response in its place: no byte of the response was sent
        raise Failed("closed normally, although only the close delimits the body")

    async def _again(self) -> None:
        await self._caller.send(get(b"/again"))
        await self._receive(Receive(b"GET /again HTTP/1.1"))
        await self._last.send(OK)
        response = await self._alone(self._caller.response())
        _equal(response.body, b"ok")


def _equal(actual: object, expected: object) -> None:
    if actual != expected:
        raise Failed(f"got {actual!r:.300} instead of {expected!r:.300}")


def _in_order(expected: list[bytes], lines: list[bytes]) -> None:
    remaining = iter(lines)
    for line in expected:
        if line not in remaining:
            raise Failed(f"no line {line!r} in the expected order among {lines!r:.600}")


def _with_space(line: bytes) -> bytes:
    """Normalizes the optional whitespace around a field's value (RFC 9110 §5.5)."""
    name, _, value = line.partition(b":")
    return name + b": " + value.strip(b" \t")
