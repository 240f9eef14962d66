"""Transparency: requests and responses pass byte for byte."""

import gzip
import time
from email.utils import parsedate_to_datetime

import pytest

from support.proxy_harness import AUTHORIZATION, VIA, running_proxy
from support.raw_caller import request
from support.raw_upstream import ok
from support.scripted_upstream import OK, ScriptedUpstream, responding

TARGETS = [
    b"/a%2Fb%2fc",
    b"//double//slashes/",
    b"/a/../b/./c",
    b"/;params;x=1/y;z",
    b"/empty?",
    b"/q?a=1&a=2&b=%20+%7E&c",
    b"/brackets[0]{1}|^`?x[]=1",
    b"/q??double?marks",
    b"/~tilde/%7Etilde",
    b"/" + b"p" * 7 * 1024,
]


@pytest.mark.parametrize("target", TARGETS, ids=range(len(TARGETS)))
async def test_the_target_passes_byte_for_byte(target: bytes) -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        assert (await caller.get(target)).body == b"ok"
        assert upstream.requests[0].lines[0] == b"GET " + target + b" HTTP/1.1"


async def test_only_host_via_and_authorization_are_added_to_a_request() -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(b"GET /api/v4/workflows HTTP/1.1\r\nHost: localhost:8080\r\n\r\n")
        await caller.response()
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


@pytest.mark.parametrize(
    "status_line",
    [b"299 Quite All Right", b"200 ", b"418 I'm a teapot", b"599 \xe9\xff", b"451 Unavailable For Legal Reasons"],
)
async def test_any_status_and_reason_phrase_is_relayed(status_line: bytes) -> None:
    async with (
        ScriptedUpstream(responding(b"HTTP/1.1 " + status_line + b"\r\nContent-Length: 0\r\n\r\n")) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        assert (await caller.get(b"/x")).status_line == b"HTTP/1.1 " + status_line


@pytest.mark.parametrize("method", [b"PUT", b"PATCH", b"OPTIONS", b"PROPFIND", b"M-SEARCH", b"FROB", b"frob"])
async def test_every_method_is_forwarded(method: bytes) -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(method, b"/x"))
        assert (await caller.response()).status == 200
        assert upstream.requests[0].lines[0] == method + b" /x HTTP/1.1"


async def test_compressed_bodies_pass_unchanged_in_both_directions() -> None:
    compressed = gzip.compress(b"a document " * 1000)
    response_bytes = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (
        len(compressed),
        compressed,
    )
    async with (
        ScriptedUpstream(responding(response_bytes)) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        response = await caller.post(b"/x", compressed, b"Content-Encoding: gzip", b"Accept-Encoding: gzip, br")
        assert upstream.requests[0].body == compressed
        assert b"Content-Encoding: gzip" in upstream.requests[0].lines
        assert b"Accept-Encoding: gzip, br" in upstream.requests[0].lines
        assert response.body == compressed
        assert response.value(b"Content-Encoding") == b"gzip"


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
    ("target", "host", "sent"),
    [
        (b"http://localhost:8080/a%2Fb?x=", b"localhost:8080", b"/a%2Fb?x="),
        (b"HTTP://127.0.0.1/", b"ignored", b"/"),
        (b"http://localhost?q", b"localhost", b"/?q"),
        (b"http://localhost", b"localhost", b"/"),
    ],
)
async def test_an_absolute_target_of_the_proxy_becomes_a_path(target: bytes, host: bytes, sent: bytes) -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(b"GET %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (target, host))
        assert (await caller.response()).status == 200
        assert upstream.requests[0].lines[0] == b"GET " + sent + b" HTTP/1.1"
        assert upstream.requests[0].lines[1] == b"Host: " + upstream.origin.authority.encode()


async def test_the_asterisk_target_of_options_is_forwarded() -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"OPTIONS", b"*"))
        assert (await caller.response()).status == 200
        assert upstream.requests[0].lines[0] == b"OPTIONS * HTTP/1.1"


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


@pytest.mark.parametrize(("sent", "forwarded"), [(b"7", b"6"), (b"1", b"0"), (b"x", b"x"), (b"", b"")])
async def test_max_forwards_of_options_is_counted_down(sent: bytes, forwarded: bytes) -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"OPTIONS", b"/x", b"A: 1", b"max-forwards: " + sent, b"B: 2"))
        assert (await caller.response()).status == 200
        assert upstream.requests[0].lines[2:5] == [b"A: 1", b"max-forwards: " + forwarded, b"B: 2"]


async def test_the_proxy_responds_to_options_whose_max_forwards_is_0() -> None:
    """RFC 9110 §7.6.2."""
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"OPTIONS", b"/x", b"Max-Forwards: 0"))
        response = await caller.response()
        assert (response.status, response.body) == (200, b"")
        assert b"OPTIONS" in response.value(b"Allow")
        assert response.values(b"Date")
        assert (await caller.get(b"/y")).status == 200
        assert [exchange.lines[0] for exchange in upstream.requests] == [b"GET /y HTTP/1.1"]
