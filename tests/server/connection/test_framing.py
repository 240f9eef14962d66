"""Bodies of every framing and size, both ways; when connections stay open and when they close."""

import pytest

from support.proxy_harness import running_proxy
from support.raw_caller import chunked, request
from support.scripted_upstream import OK, ScriptedUpstream, responding

MIB = 2**20
SIZES = [0, 1, 70_000, 8 * MIB]
NO_BODY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


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


async def test_a_204_has_no_length() -> None:
    async with (
        ScriptedUpstream(responding(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n")) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        for _ in range(2):
            response = await caller.get(b"/x")
            assert response.status == 204
            assert not response.values(b"Content-Length")
            assert not response.values(b"Transfer-Encoding")


async def test_pipelined_requests_get_their_responses_in_order() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(b"".join(request(b"POST", b"/%d" % i, body=b"b%d" % i) for i in range(3)))
        for i in range(3):
            exchange = await upstream.next_request()
            assert exchange.lines[0] == b"POST /%d HTTP/1.1" % i
            await exchange.respond(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % i)
            assert exchange.body == b"b%d" % i
        assert [(await caller.response()).body for _ in range(3)] == [b"0", b"1", b"2"]


async def test_a_connection_stays_open_until_the_caller_sends_connection_close() -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        assert not (await caller.get(b"/1")).values(b"Connection")
        last = await caller.get(b"/2", b"Connection: close")
        assert last.values(b"Connection") == [b"close"]
        assert await caller.read_to_end() == b""
        assert upstream.connections == 1
        assert b"Connection" not in upstream.requests[1].head


async def test_the_upstreams_connection_field_does_not_reach_the_caller() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"GET", b"/1"))
        exchange = await upstream.next_request()
        await exchange.send(
            b"HTTP/1.1 200 OK\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n"
            b"Content-Length: 2\r\n\r\nok"
        )
        response = await caller.response()
        assert not response.values(b"Connection")
        assert not response.values(b"X-Hop")
        assert not response.values(b"Keep-Alive")
        await exchange.read_to_end()
        await caller.send(request(b"GET", b"/2"))
        await (await upstream.next_request()).respond(OK)
        assert (await caller.response()).body == b"ok"
        assert upstream.connections == 2


async def test_an_http_1_0_connection_closes_after_its_response() -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"POST", b"/x", body=b"abc", version=b"HTTP/1.0"))
        response = await caller.response()
        assert response.values(b"Connection") == [b"close"]
        assert response.body == b"ok"
        assert await caller.read_to_end() == b""
        assert upstream.requests[0].lines[0] == b"POST /x HTTP/1.1"
        assert upstream.requests[0].body == b"abc"


async def test_an_http_1_0_caller_may_keep_its_connection_alive() -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        for _ in range(2):
            await caller.send(request(b"GET", b"/x", b"Connection: keep-alive", version=b"HTTP/1.0"))
            response = await caller.response()
            assert response.values(b"Connection") == [b"keep-alive"]
            assert response.body == b"ok"


@pytest.mark.parametrize("field", [b"Transfer-Encoding: chunked\r\n", b""], ids=["chunked", "to_the_end"])
async def test_an_http_1_0_caller_gets_no_chunked_response(field: bytes) -> None:
    data = chunked(b"ab", b"cd") if field else b"abcd"
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"GET", b"/x", b"Connection: keep-alive", version=b"HTTP/1.0"))
        exchange = await upstream.next_request()
        await exchange.send(b"HTTP/1.1 200 OK\r\n" + field + b"\r\n" + data)
        exchange.close()
        response = await caller.response()
        assert response.body == b"abcd"
        assert not response.values(b"Transfer-Encoding")
        assert response.values(b"Connection") == [b"close"]


INTERIM = (
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\n"
    b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 199 \r\nx-odd:\r\n\r\n"
)


async def test_interim_responses_pass_without_hop_by_hop_fields() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        for _ in range(2):
            await caller.send(request(b"GET", b"/x"))
            exchange = await upstream.next_request()
            await exchange.send(INTERIM)
            assert await caller.head() == b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
            assert await caller.head() == b"HTTP/1.1 102 Processing\r\n\r\n"
            assert await caller.head() == b"HTTP/1.1 199 \r\nx-odd: \r\n\r\n"
            await exchange.respond(NO_BODY)
            response = await caller.response()
            assert response.status == 200
            assert not response.values(b"Link")


async def test_an_http_1_0_caller_gets_no_interim_responses() -> None:
    async with (
        ScriptedUpstream(responding(INTERIM + NO_BODY)) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"GET", b"/x", version=b"HTTP/1.0"))
        response = await caller.response()
        assert response.status == 200
        assert not response.values(b"Link")
        assert await caller.read_to_end() == b""
