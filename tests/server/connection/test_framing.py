"""Bodies of every framing and size, both ways. `tests/conformance` has the odd ones."""

import pytest

from support.proxy_harness import running_proxy
from support.raw_caller import chunked, request
from support.scripted_upstream import OK, ScriptedUpstream, responding

MIB = 2**20
SIZES = [0, 1, 70_000, 8 * MIB]


def _bytes(count: int) -> bytes:
    """Returns bytes in which every position is unique, so that a lost or repeated piece shows."""
    return b"".join(number.to_bytes(4, "big") for number in range(count // 4 + 1))[:count]


@pytest.mark.parametrize("size", SIZES)
async def test_an_upload_with_a_length_arrives_whole_with_its_length(size: int) -> None:
    body = _bytes(size)
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        assert (await caller.post(b"/x", body)).body == b"ok"
        assert upstream.requests[0].body == body
        assert b"Content-Length: %d" % size in upstream.requests[0].lines
        assert b"Transfer-Encoding: chunked" not in upstream.requests[0].lines
        await proxy.check_idle()


@pytest.mark.parametrize("size", SIZES)
async def test_a_chunked_upload_arrives_whole_and_chunked(size: int) -> None:
    body = _bytes(size)
    pieces = [body[start : start + 100_000] for start in range(0, size, 100_000)]
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"POST", b"/x", b"Transfer-Encoding: chunked") + chunked(*pieces))
        assert (await caller.response()).body == b"ok"
        assert upstream.requests[0].body == body
        assert b"Transfer-Encoding: chunked" in upstream.requests[0].lines
        assert not any(line.lower().startswith(b"content-length") for line in upstream.requests[0].lines)
        await proxy.check_idle()


@pytest.mark.parametrize("size", SIZES)
async def test_a_response_with_a_length_arrives_whole(size: int) -> None:
    body = _bytes(size)
    async with (
        ScriptedUpstream(responding(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (size, body))) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        for _ in range(2):
            response = await caller.get(b"/x")
            assert response.body == body
            assert response.value(b"Content-Length") == b"%d" % size
        assert upstream.connections == 1


@pytest.mark.parametrize("size", SIZES)
async def test_a_chunked_response_arrives_chunked_with_its_trailers(size: int) -> None:
    body = _bytes(size)
    pieces = [body[start : start + 100_000] for start in range(0, size, 100_000)]
    end = b"0\r\nX-Checksum: 1\r\nx-checksum: 2\r\n\r\n"
    data = chunked(*pieces).removesuffix(b"0\r\n\r\n") + end
    async with (
        ScriptedUpstream(
            responding(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Checksum\r\n\r\n" + data)
        ) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        for _ in range(2):
            response = await caller.get(b"/x")
            assert response.body == body
            assert response.values(b"Transfer-Encoding") == [b"chunked"]
            assert response.trailers == b"X-Checksum: 1\r\nx-checksum: 2\r\n"
        assert upstream.connections == 1


async def test_a_response_delimited_by_close_becomes_chunked() -> None:
    body = _bytes(200_000)
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        for _ in range(2):
            await caller.send(request(b"GET", b"/x"))
            exchange = await upstream.next_request()
            await exchange.send(b"HTTP/1.1 200 OK\r\n\r\n" + body)
            exchange.close()
            response = await caller.response()
            assert response.values(b"Transfer-Encoding") == [b"chunked"]
            assert response.body == body
        assert upstream.connections == 2


@pytest.mark.parametrize("status", [b"200 OK", b"304 Not Modified"])
async def test_a_response_without_a_body_keeps_its_content_length(status: bytes) -> None:
    upstream_response = b"HTTP/1.1 " + status + b"\r\nContent-Length: 1234\r\n\r\n"
    async with (
        ScriptedUpstream(responding(upstream_response)) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        for _ in range(2):
            await caller.send(request(b"HEAD", b"/x"))
            response = await caller.response(to_head=True)
            assert response.value(b"Content-Length") == b"1234"
            assert not response.values(b"Transfer-Encoding")
        assert upstream.connections == 1


async def test_a_chunked_response_to_head_has_no_body_and_no_coding() -> None:
    async with (
        ScriptedUpstream(responding(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        for _ in range(2):
            await caller.send(request(b"HEAD", b"/x"))
            assert not (await caller.response(to_head=True)).values(b"Transfer-Encoding")
