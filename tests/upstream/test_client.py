"""Whole exchanges with a scripted upstream: uploads, early responses, timeouts, lost connections."""

import asyncio
import time
from pathlib import Path

import pytest

from nanonets_proxy.upstream import client
from nanonets_proxy.upstream.body import RequestBody
from nanonets_proxy.upstream.errors import UpstreamBadReply, UpstreamClosed, UpstreamError, UpstreamTimeout
from nanonets_proxy.upstream.exchange import UpstreamRequest
from support.caller_bodies import ArrivingBody, BodyOnDemand
from support.client_harness import body_budget, request, running_client
from support.eventually import stable, until
from support.raw_upstream import Peer, RawUpstream, Script, ok, responding

MIB = 1024 * 1024


class Wire:
    """Records the request up to and including `end`, then responds."""

    def __init__(self, end: bytes, response: bytes = ok()) -> None:
        self.received = b""
        self._end = end
        self._response = response

    async def __call__(self, peer: Peer) -> None:
        self.received += await peer.head()
        if self._end:
            self.received += await peer.read_through(self._end)
        await peer.send(self._response)
        self.received += await peer.read_to_end()


# --- what goes over the wire --------------------------------------------------------------------------


async def test_a_request_without_a_body_consists_of_its_head() -> None:
    wire = Wire(b"")
    async with RawUpstream(wire) as upstream, running_client(upstream.origin) as running:
        assert (await running.fetch(request("GET", path="/a?b"))).body == b"ok"
        running.pool.close()
        await until(lambda: upstream.ended == 1)
    assert wire.received == b"GET /a?b HTTP/1.1\r\nHost: upstream\r\n\r\n"


@pytest.mark.parametrize("all_here", [True, False])
@pytest.mark.parametrize(
    ("pieces", "length", "sent_piecewise", "sent_at_once"),
    [
        ([b"hel", b"lo!"], 6, b"hello!", b"hello!"),
        ([b"hel", b"lo!"], None, b"3\r\nhel\r\n3\r\nlo!\r\n0\r\n\r\n", b"6\r\nhello!\r\n0\r\n\r\n"),
        ([b"x" * 300 + b"!"], None, b"12d\r\n" + b"x" * 300 + b"!\r\n0\r\n\r\n", None),
        ([], None, b"0\r\n\r\n", None),
    ],
)
async def test_a_body_is_framed_exactly(
    pieces: list[bytes],
    length: int | None,
    sent_piecewise: bytes,
    sent_at_once: bytes | None,
    all_here: bool,
    tmp_path: Path,
) -> None:
    wire = Wire(b"!" if length else b"0\r\n\r\n")
    source = ArrivingBody(*pieces, finished=True) if all_here else ArrivingBody(*pieces[:-1])
    with RequestBody(source, length, body_budget(tmp_path)) as body:
        async with RawUpstream(wire) as upstream, running_client(upstream.origin) as running:
            asking = asyncio.create_task(running.fetch(request("POST", body)))
            if not all_here:
                await until(lambda: source.read_pieces == len(pieces[:-1]))
                for piece in pieces[-1:]:
                    source.feed(piece)
                source.finish()
            assert (await asking).status == 200
            assert running.pool.idle == 1
            running.pool.close()
            await until(lambda: upstream.ended == 1)
        assert body.received_bytes == len(b"".join(pieces))
    head, _, sent = wire.received.partition(b"\r\n\r\n")
    assert head.startswith(b"POST / HTTP/1.1\r\n")
    assert sent == (sent_at_once or sent_piecewise if all_here else sent_piecewise)


async def test_a_body_is_read_no_faster_than_the_upstream_takes_it(tmp_path: Path) -> None:
    total = 50 * MIB
    source = BodyOnDemand(bytes(64 * 1024) for _ in range(total // (64 * 1024)))
    go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        await go_on.wait()
        for _ in range(50):
            assert await peer.read_exactly(MIB) == bytes(MIB)
        await peer.send(ok())
        await peer.read_to_end()

    with RequestBody(source, total, body_budget(tmp_path, replay=0)) as body:
        async with RawUpstream(script) as upstream, running_client(upstream.origin) as running:
            asking = asyncio.create_task(running.fetch(request("POST", body)))
            await until(lambda: source.read_bytes > 0)
            assert await stable(lambda: source.read_bytes) < 16 * MIB  # most of it in the kernel's socket buffers
            go_on.set()
            assert (await asking).body == b"ok"
            assert running.pool.idle == 1


# --- a response before the end of the upload ---------------------------------------------------------


async def test_an_early_error_response_stops_the_upload_and_closes_the_connection(tmp_path: Path) -> None:
    refusal = ok(b"too large", status=b"413 Content Too Large")
    source = ArrivingBody(b"first")
    with RequestBody(source, 100, body_budget(tmp_path)) as body:
        wire = Wire(b"first", refusal)
        async with RawUpstream(wire) as upstream, running_client(upstream.origin) as running:
            exchange = await running.client.send(request("POST", body))
            connection, head = exchange
            assert head.status == 413
            source.feed(b"second")
            await until(running.client._uploads[connection].done)
            source.feed(b"third")
            assert (await running.read_response(exchange)).body == b"too large"
            assert running.pool.idle == 0
            await until(lambda: upstream.ended == 1)
    assert wire.received.endswith(b"\r\n\r\nfirst")
    assert source.read_pieces == 2  # the second was being sent when the response came; the third stays unread


async def test_an_early_success_response_does_not_stop_the_upload(tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.read_exactly(5)
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n")
        await peer.send(await peer.read_exactly(6))
        await peer.read_to_end()

    source = ArrivingBody(b"first")
    with RequestBody(source, 11, body_budget(tmp_path)) as body:
        async with RawUpstream(script) as upstream, running_client(upstream.origin) as running:
            exchange = await running.client.send(request("POST", body))
            source.feed(b"second")
            source.finish()
            assert (await running.read_response(exchange)).body == b"second"
            assert running.pool.idle == 1


async def test_releasing_an_exchange_during_the_upload_closes_the_connection(tmp_path: Path) -> None:
    source = ArrivingBody(b"first")
    with RequestBody(source, 11, body_budget(tmp_path)) as body:
        async with RawUpstream(Wire(b"first")) as upstream, running_client(upstream.origin) as running:
            connection, _ = await running.client.send(request("POST", body))
            upload = running.client._uploads[connection]
            running.client.release(connection)
            await until(lambda: upstream.ended == 1)
            await asyncio.wait([upload])
            assert upload.cancelled()
            assert running.client._uploads == {}


# --- Expect: 100-continue -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "interim",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\nConnection: close\r\n\r\n",
        b"HTTP/1.0 100 Continue\r\n\r\n",
    ],
)
async def test_a_body_waits_for_100_continue(
    interim: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_CONTINUE_WAIT_S", 60.0)  # so that the 100 ends the wait, not the timeout
    source = ArrivingBody(b"body!")

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(interim[:15])
        assert await stable(lambda: source.read_pieces) == 0
        await peer.send(interim[15:])
        await peer.read_exactly(5)
        await peer.send(ok())
        await peer.read_to_end()

    with RequestBody(source, 5, body_budget(tmp_path)) as body:
        async with RawUpstream(script) as upstream, running_client(upstream.origin) as running:
            asking = asyncio.create_task(running.fetch(request("POST", body, expect_continue=True)))
            await until(lambda: source.read_pieces == 1)
            source.finish()
            assert (await asking).status == 200


@pytest.mark.parametrize("status", [b"417 Expectation Failed", b"200 OK"])
async def test_a_final_response_instead_of_100_leaves_the_body_unread(status: bytes, tmp_path: Path) -> None:
    source = ArrivingBody(b"body!")
    with RequestBody(source, 5, body_budget(tmp_path)) as body:
        async with (
            RawUpstream(responding(ok(status=status))) as upstream,
            running_client(upstream.origin) as running,
        ):
            exchange = await running.client.send(request("POST", body, expect_continue=True))
            await until(running.client._uploads[exchange[0]].done)
            assert (await running.read_response(exchange)).body == b"ok"
            assert running.pool.idle == 0
    assert source.read_pieces == 0


async def test_a_body_waits_for_100_only_for_a_limited_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_CONTINUE_WAIT_S", 0.1)
    with RequestBody(ArrivingBody(b"body!"), 5, body_budget(tmp_path)) as body:
        async with RawUpstream(Wire(b"body!")) as upstream, running_client(upstream.origin) as running:
            started_s = time.monotonic()
            connection, _ = await running.client.send(request("POST", body, expect_continue=True))
            assert time.monotonic() - started_s > 0.09
            running.client.release(connection)


# --- failures and hang-ups --------------------------------------------------------------------------------


async def test_an_error_of_the_caller_is_raised_and_ends_the_upload(tmp_path: Path) -> None:
    source = ArrivingBody(b"first")
    wire = Wire(b"never")
    with RequestBody(source, 100, body_budget(tmp_path)) as body:
        async with RawUpstream(wire) as upstream, running_client(upstream.origin) as running:
            asking = asyncio.create_task(running.fetch(request("POST", body)))
            await until(lambda: source.read_pieces == 1)
            source.break_off(ConnectionResetError("the caller has gone"))
            with pytest.raises(ConnectionResetError, match="caller"):
                await asking
            await until(lambda: upstream.ended == 1)


async def test_an_error_of_the_caller_after_an_early_head_is_raised_by_read(tmp_path: Path) -> None:
    source = ArrivingBody(b"first")
    response = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    with RequestBody(source, 100, body_budget(tmp_path)) as body:
        async with RawUpstream(Wire(b"first", response)) as upstream, running_client(upstream.origin) as running:
            exchange = await running.client.send(request("POST", body))
            source.break_off(ConnectionResetError("the caller has gone"))
            with pytest.raises(ConnectionResetError, match="caller"):
                await running.read_response(exchange)


async def test_losing_the_upstream_stops_the_reading_of_the_body(tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.read_exactly(5)
        peer.reset()

    source = ArrivingBody(b"first")
    with RequestBody(source, 100, body_budget(tmp_path)) as body:
        async with RawUpstream(script) as upstream, running_client(upstream.origin) as running:
            with pytest.raises(UpstreamClosed) as caught:
                await running.fetch(request("POST", body))
            assert caught.value.sent
    source.feed(b"second")
    assert await stable(lambda: source.read_pieces) == 1


@pytest.mark.parametrize("with_body", [True, False])
async def test_cancelling_closes_the_upstream_connection_at_once(with_body: bool, tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        if with_body:
            await peer.read_exactly(5)
        under_way.set()
        await peer.read_to_end()

    under_way = asyncio.Event()
    with RequestBody(ArrivingBody(b"first"), 100, body_budget(tmp_path)) as body:
        async with RawUpstream(script) as upstream, running_client(upstream.origin) as running:
            asking = asyncio.create_task(running.fetch(request("POST", body) if with_body else request()))
            await under_way.wait()
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            await until(lambda: upstream.ended == 1)


async def test_the_first_byte_timeout_starts_after_the_upload(tmp_path: Path) -> None:
    source = ArrivingBody(b"first")
    with RequestBody(source, 6, body_budget(tmp_path)) as body:
        async with (
            RawUpstream(Wire(b"never")) as upstream,
            running_client(upstream.origin, first_byte_timeout_s=0.05) as running,
        ):
            asking = asyncio.create_task(running.fetch(request("POST", body)))
            await asyncio.wait([asking], timeout=0.15)
            assert not asking.done()
            source.feed(b"!")
            source.finish()
            with pytest.raises(UpstreamTimeout):
                await asking


async def echo(peer: Peer) -> None:
    """Sends the request back, including the key."""
    await peer.send(await peer.head())
    await peer.read_to_end()


async def closing(peer: Peer) -> None:
    await peer.head()


@pytest.mark.parametrize(("script", "error"), [(echo, UpstreamBadReply), (closing, UpstreamClosed)])
async def test_no_error_contains_the_key(script: Script, error: type[UpstreamError]) -> None:
    key = b"c2VjcmV0LWtleTo="
    head = b"GET / HTTP/1.1\r\nHost: upstream\r\nAuthorization: Basic " + key + b"\r\n\r\n"
    async with RawUpstream(script) as upstream, running_client(upstream.origin) as running:
        with pytest.raises(error) as caught:
            await running.fetch(UpstreamRequest("GET", head, None))
    seen: BaseException | None = caught.value
    while seen is not None:
        assert key.decode() not in f"{seen!r} {seen} {vars(seen)}"
        seen = seen.__cause__ or seen.__context__
