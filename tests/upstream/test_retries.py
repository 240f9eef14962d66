"""When the client sends a request again, and when it does not."""

import asyncio
from pathlib import Path

import pytest

from nanonets_proxy.upstream.body import RequestBody
from nanonets_proxy.upstream.errors import UpstreamClosed, UpstreamTimeout
from support.caller_bodies import ArrivingBody
from support.client_harness import body_budget, request, running_client
from support.eventually import until
from support.raw_upstream import Peer, RawUpstream, ok, responding, responding_then_closing

REPEATABLE = ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"]
NOT_REPEATABLE = ["POST", "PATCH", "MOVE"]


async def dies_on_the_second(peer: Peer) -> None:
    """Responds to one request, reads the next, and closes without a response."""
    await peer.head()
    await peer.send(ok(b"first"))
    await peer.head()


@pytest.mark.parametrize("method", REPEATABLE)
async def test_an_idempotent_request_lost_on_a_reused_connection_is_sent_once_more(method: str) -> None:
    response = ok(b"" if method == "HEAD" else b"second")
    async with (
        RawUpstream(dies_on_the_second, responding(response)) as upstream,
        running_client(upstream.origin) as running,
    ):
        await running.fetch(request())
        assert (await running.fetch(request(method))).status == 200
        assert (upstream.accepted, running.retries, running.pool.idle) == (2, 1, 1)


@pytest.mark.parametrize("method", NOT_REPEATABLE)
async def test_any_other_delivered_request_is_not_sent_again(method: str) -> None:
    async with RawUpstream(dies_on_the_second) as upstream, running_client(upstream.origin) as running:
        await running.fetch(request())
        with pytest.raises(UpstreamClosed) as caught:
            await running.fetch(request(method))
        assert caught.value.sent
        assert (upstream.accepted, running.retries) == (1, 0)


async def test_on_a_new_connection_a_lost_request_is_not_sent_again() -> None:
    async with RawUpstream(responding_then_closing(b"")) as upstream, running_client(upstream.origin) as running:
        with pytest.raises(UpstreamClosed):
            await running.fetch(request())
        assert (upstream.accepted, running.retries) == (1, 0)


async def test_a_request_is_sent_at_most_twice() -> None:
    async with (
        RawUpstream(dies_on_the_second, responding_then_closing(b"")) as upstream,
        running_client(upstream.origin) as running,
    ):
        await running.fetch(request())
        with pytest.raises(UpstreamClosed):
            await running.fetch(request())
        assert (upstream.accepted, running.retries) == (2, 1)


@pytest.mark.parametrize("begun", [b"H", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\n"])
async def test_a_request_whose_response_has_begun_is_not_sent_again(begun: bytes) -> None:
    async with (
        RawUpstream(responding_then_closing(ok(), begun)) as upstream,
        running_client(upstream.origin) as running,
    ):
        await running.fetch(request())
        with pytest.raises(UpstreamClosed):
            await running.fetch(request())
        assert (upstream.accepted, running.retries) == (1, 0)


async def test_a_slow_response_on_a_reused_connection_is_not_retried() -> None:
    async with (
        RawUpstream(responding(ok(), b"")) as upstream,
        running_client(upstream.origin) as running,
    ):
        await running.fetch(request())
        running.client.change_timeout(0.1)
        with pytest.raises(UpstreamTimeout):
            await running.fetch(request())
        assert (upstream.accepted, running.retries) == (1, 0)


@pytest.mark.parametrize("memory", [2**20, 0])
@pytest.mark.parametrize("length", [9, None])
async def test_a_put_is_sent_again_from_the_copy_of_its_body(
    length: int | None, memory: int, tmp_path: Path
) -> None:
    """The connection is lost after half of the body was sent; the other half arrives later."""
    source = ArrivingBody(b"abc", b"def")
    received: list[bytes] = []
    chunked = length is None

    async def dies_in_mid_upload(peer: Peer) -> None:
        await peer.head()
        await peer.send(ok(b"first"))
        await peer.head()
        received.append(await peer.read_exactly(len(b"3\r\nabc\r\n3\r\ndef\r\n") if chunked else len(b"abcdef")))
        peer.reset()

    async def takes_all(peer: Peer) -> None:
        await peer.head()
        received.append(await peer.read_through(b"ghi\r\n0\r\n\r\n" if chunked else b"ghi"))
        await peer.send(ok(b"second"))
        await peer.read_to_end()

    with RequestBody(source, length, body_budget(tmp_path, memory=memory)) as body:
        async with (
            RawUpstream(dies_in_mid_upload, takes_all) as upstream,
            running_client(upstream.origin) as running,
        ):
            await running.fetch(request())
            asking = asyncio.create_task(running.fetch(request("PUT", body)))
            await until(lambda: upstream.accepted == 2)
            source.feed(b"ghi")
            source.finish()
            assert (await asking).body == b"second"
            assert running.retries == 1
    payloads = [b"".join(part.split(b"\r\n")[1::2]) if chunked else part for part in received]
    assert payloads == [b"abcdef", b"abcdefghi"]


async def test_a_put_without_a_copy_of_its_body_is_not_sent_again(tmp_path: Path) -> None:
    async def dies_in_mid_upload(peer: Peer) -> None:
        await peer.head()
        await peer.send(ok(b"first"))
        await peer.head()
        await peer.read_exactly(3)

    with RequestBody(ArrivingBody(b"abc"), 9, body_budget(tmp_path, replay=0)) as body:
        async with RawUpstream(dies_in_mid_upload) as upstream, running_client(upstream.origin) as running:
            await running.fetch(request())
            with pytest.raises(UpstreamClosed):
                await running.fetch(request("PUT", body))
            assert (upstream.accepted, running.retries) == (1, 0)


@pytest.mark.parametrize("method", NOT_REPEATABLE)
async def test_a_request_that_must_not_be_repeated_checks_the_socket_first(method: str) -> None:
    """The upstream's FIN waits in the socket, and the event loop has not read it yet."""
    peers: list[Peer] = []

    async def script(peer: Peer) -> None:
        peers.append(peer)
        await responding(ok(b"%d" % len(peers)))(peer)

    async with RawUpstream(script) as upstream, running_client(upstream.origin) as running:
        await running.fetch(request())
        peers[0].send_fin()
        assert running.pool.idle == 1
        assert (await running.fetch(request(method))).body == b"2"
        assert (upstream.accepted, running.retries) == (2, 0)
