"""Transparency: requests and responses pass byte for byte."""

import time
from email.utils import parsedate_to_datetime

import pytest

from support.proxy_harness import AUTHORIZATION, VIA, running_proxy
from support.raw_caller import request
from support.raw_upstream import ok
from support.scripted_upstream import OK, ScriptedUpstream, responding


async def test_only_host_via_and_authorization_are_added_to_a_request() -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        own = (AUTHORIZATION, AUTHORIZATION.lower())  # even the proxy's own credentials do not pass
        await caller.get(b"/api/v4/workflows", *own)
        host = b"Host: " + upstream.origin.authority.encode()
        lines = [b"GET /api/v4/workflows HTTP/1.1", host, VIA, AUTHORIZATION, b"", b""]
        assert upstream.requests[0].head == b"\r\n".join(lines)


async def test_request_fields_keep_their_order_case_repetition_and_bytes() -> None:
    lines = [
        b"x-UPPER-lower: 1",
        b"Accept: a",
        b"X-Empty:",
        b"accept: b",
        b"X-Latin: caf\xe9 \xff",
        b"X-Tab: a\tb  c",
        b"Content-Type: multipart/form-data; boundary=--x",
        b"ACCEPT: a",
        b"X-Colon: a: b: c",
    ]
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.post(b"/x", b"body", *lines)
        expected = [line.replace(b"X-Empty:", b"X-Empty: ") for line in lines]
        assert upstream.requests[0].lines[2:-1] == [*expected, b"Content-Length: 4", VIA]
        assert upstream.requests[0].body == b"body"


async def test_response_fields_keep_their_order_case_repetition_and_bytes() -> None:
    lines = [
        b"Set-Cookie: a=1; Path=/",
        b"x-UPPER-lower: 1",
        b"Set-Cookie: b=2",
        b"X-Empty: ",
        b"X-Latin: caf\xe9 \xff",
        b"set-cookie: a=3",
        b"Link: <x>",
        b"Content-Length: 2",
        b"Date: Thu, 01 Jan 1970 00:00:00 GMT",
    ]
    async with (
        ScriptedUpstream(responding(b"\r\n".join([b"HTTP/1.1 200 OK", *lines, b"", b"hi"]))) as upstream,
        running_proxy(upstream.origin, server_timing=False) as proxy,
        await proxy.caller() as caller,
    ):
        response = await caller.get(b"/x", b"X-Request-Id: mine")
        assert response.head.split(b"\r\n") == [b"HTTP/1.1 200 OK", *lines, b"X-Request-Id: mine", VIA, b"", b""]


@pytest.mark.parametrize("via", ["", "sidecar"])
async def test_via_has_the_name_that_is_set(via: str) -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin, via=via) as proxy,
        await proxy.caller() as caller,
    ):
        response = await caller.get(b"/x", b"Via: 1.0 before")
        own = [b"1.1 sidecar"] if via else []
        fields = [line for line in upstream.requests[0].lines if line.startswith(b"Via: ")]
        assert fields == [b"Via: 1.0 before", *(b"Via: " + value for value in own)]
        assert response.values(b"Via") == own


@pytest.mark.parametrize("sent", [(), (b"Date: Thu, 01 Jan 1970 00:00:00 GMT",), (b"DATE: nonsense",)])
async def test_a_response_without_date_gets_the_time_of_its_receipt(sent: tuple[bytes, ...]) -> None:
    """RFC 9110 §6.6.1."""
    async with (
        ScriptedUpstream(responding(ok(b"x", *sent))) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        before_s = time.time()
        response = await caller.get(b"/x")
        date = response.value(b"Date")
        if sent:
            assert date == sent[0].partition(b": ")[2]
        else:
            made_at = parsedate_to_datetime(date.decode())
            assert before_s - 2 <= made_at.timestamp() <= time.time() + 1
            assert date.endswith(b" GMT")


@pytest.mark.parametrize(
    ("location", "seen"),
    [
        (b"%b/next?x=%%2F", b"http://localhost/next?x=%%2F"),
        (b"%b", b"http://localhost"),
        (b"%b.example.com/next", None),
        (b"%b1/next", None),
        (b"%b@evil.example/", None),
        (b"https://bucket.s3.amazonaws.com/signed?u=%b/", None),
        (b"/relative", None),
    ],
)
async def test_only_a_location_of_the_upstreams_origin_is_rewritten(location: bytes, seen: bytes | None) -> None:
    async with ScriptedUpstream() as upstream, running_proxy(upstream.origin) as proxy:
        sent = location.replace(b"%b", str(upstream.origin).encode()).replace(b"%%", b"%")
        async with await proxy.caller() as caller:
            await caller.send(request(b"GET", b"/x"))
            exchange = await upstream.next_request()
            await exchange.respond(b"HTTP/1.1 302 Found\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % sent)
            response = await caller.response()
            assert response.status == 302
            assert response.value(b"Location") == (sent if seen is None else seen.replace(b"%%", b"%"))
