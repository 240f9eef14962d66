"""The proxy's own responses, and the fields that it adds to the upstream's."""

import re

import pytest

from support.proxy_harness import running_proxy
from support.raw_caller import request
from support.scripted_upstream import OK, ScriptedUpstream, responding

MADE_ID = re.compile(rb"[0-9a-f]{16}")


async def test_an_error_response_has_the_vendors_shape() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        response = await caller.get(b"/x", b"Origin: https://evil.example", b"X-Request-Id: mine")
        assert response.status_line == b"HTTP/1.1 403 Forbidden"
        assert response.json() == {
            "code": "forbidden_origin",
            "message": "Pages of another origin may not call the proxy.",
            "details": {"request_id": "mine"},
        }
        assert response.value(b"Content-Type") == b"application/json; charset=utf-8"
        assert response.value(b"Proxy-Status") == (
            b'nanonets-proxy; error=http_request_denied; details="forbidden_origin"'
        )
        assert response.value(b"X-Request-Id") == b"mine"
        assert response.value(b"Server") == b"nanonets-proxy"
        assert response.value(b"Connection") == b"close"
        assert await caller.read_to_end() == b""


@pytest.mark.parametrize("method", [b"HEAD", b"GET"])
@pytest.mark.parametrize(
    ("target", "field", "status"),
    [
        (b"/x", b"X : a", 400),
        (b"/x", b"Host: a@b", 400),
        (b"/" + b"a" * 13_000, b"X: a", 414),
        (b"/" + b"a" * 90_000, b"X: a", 414),  # rejected before its request line ends
        (b"/x y", b"X: a", 400),  # a malformed request line
        (b"/x", b"X: " + b"a" * 17_000, 431),
        (b"/x", b"X: " + b"a" * 70_000, 431),
    ],
)
async def test_a_rejected_head_request_gets_no_body(
    method: bytes, target: bytes, field: bytes, status: int
) -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(b"%b %b HTTP/1.1\r\nHost: localhost\r\n%b\r\n\r\n" % (method, target, field))
        head = await caller.head()
        assert head.startswith(b"HTTP/1.1 %d " % status)
        assert (await caller.read_to_end() == b"") is (method == b"HEAD")


async def test_an_error_response_to_head_has_no_body() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"HEAD", b"/x", b"Sec-Fetch-Site: cross-site"))
        response = await caller.response(to_head=True)
        assert response.status == 403
        assert int(response.value(b"Content-Length")) > 0
        assert await caller.read_to_end() == b""


async def test_a_rejected_upload_is_read_to_its_end_so_that_the_response_arrives() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"POST", b"/x", b"Origin: https://evil.example", body=bytes(8_000_000)))
        assert (await caller.response()).status == 403
        assert await caller.read_to_end() == b""


async def test_a_generated_request_id_goes_to_the_caller_only() -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        ids = [(await caller.get(b"/x")).value(b"X-Request-Id") for _ in range(2)]
        assert all(MADE_ID.fullmatch(made) for made in ids)
        assert ids[0] != ids[1]
        assert not any(b"X-Request-Id" in exchange.head for exchange in upstream.requests)


async def test_a_callers_request_id_is_kept_and_forwarded() -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        response = await caller.get(b"/x", b"x-request-id: from/the:caller=1")
        assert response.values(b"X-Request-Id") == [b"from/the:caller=1"]
        assert b"x-request-id: from/the:caller=1" in upstream.requests[0].lines


@pytest.mark.parametrize("bad", [b"two words", b"x" * 129, b"caf\xe9", b""])
async def test_an_invalid_request_id_is_forwarded_but_not_echoed(bad: bytes) -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        response = await caller.get(b"/x", b"X-Request-Id: " + bad)
        assert MADE_ID.fullmatch(response.value(b"X-Request-Id"))
        assert b"X-Request-Id: " + bad in upstream.requests[0].lines


async def test_the_upstreams_request_id_is_not_repeated() -> None:
    upstream_response = b"HTTP/1.1 200 OK\r\nx-request-id: theirs\r\nContent-Length: 0\r\n\r\n"
    async with (
        ScriptedUpstream(responding(upstream_response)) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        assert (await caller.get(b"/x", b"X-Request-Id: mine")).values(b"X-Request-Id") == [b"theirs"]


async def test_server_timing_has_both_times_and_can_be_switched_off() -> None:
    upstream_response = b"HTTP/1.1 200 OK\r\nServer-Timing: db;dur=3\r\nContent-Length: 0\r\n\r\n"
    async with ScriptedUpstream(responding(upstream_response)) as upstream:
        async with running_proxy(upstream.origin) as proxy, await proxy.caller() as caller:
            theirs, ours = (await caller.get(b"/x")).values(b"Server-Timing")
            assert theirs == b"db;dur=3"
            assert re.fullmatch(rb"queue;dur=[0-9]+\.[0-9], upstream;dur=[0-9]+\.[0-9]", ours)
        async with running_proxy(upstream.origin, server_timing=False) as proxy, await proxy.caller() as caller:
            assert (await caller.get(b"/x")).values(b"Server-Timing") == [b"db;dur=3"]


async def test_the_upstreams_errors_pass_unchanged() -> None:
    body = b'{"code":"unauthorized","message":"Invalid API key","details":{}}'
    for status in (b"400 Bad Request", b"401 Unauthorized", b"402 Payment Required", b"503 Service Unavailable"):
        upstream_response = b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)
        async with (
            ScriptedUpstream(responding(upstream_response)) as upstream,
            running_proxy(upstream.origin, key_gap=0) as proxy,
            await proxy.caller() as caller,
        ):
            response = await caller.post(b"/x", b"abc")
            assert response.status_line == b"HTTP/1.1 " + status
            assert response.body == body
            assert bool(response.values(b"Proxy-Status")) == status.startswith(b"401")
            assert len(upstream.requests) == 1
