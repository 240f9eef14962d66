"""A malformed request gets an error response, its connection closes, and none of its bytes goes upstream."""

import pytest

from support.proxy_harness import running_proxy
from support.raw_caller import request
from support.scripted_upstream import OK, ScriptedUpstream, responding

GOOD = b"GET /x HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST /x HTTP/1.1\r\nHost: localhost\r\n"

MALFORMED = {
    "length_and_coding": POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding_and_length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "two_lengths": POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "two_different_lengths": POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "list_of_lengths": POST + b"Content-Length: 3, 3\r\n\r\nabc",
    "signed_length": POST + b"Content-Length: +3\r\n\r\nabc",
    "negative_length": POST + b"Content-Length: -3\r\n\r\nabc",
    "hex_length": POST + b"Content-Length: 0x3\r\n\r\nabc",
    "empty_length": POST + b"Content-Length:\r\n\r\nabc",
    "endless_length": POST + b"Content-Length: 99999999999999999999999\r\n\r\nabc",
    "space_in_length": POST + b"Content-Length: 1 2\r\n\r\nabc",
    "chunked_not_last": POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "chunked_twice": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "two_codings": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "gzip_coding": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "unknown_coding": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "identity_coding": POST + b"Transfer-Encoding: identity\r\n\r\n",
    "two_hosts": GOOD + b"Host: localhost\r\n\r\n",
    "list_in_host": b"GET /x HTTP/1.1\r\nHost: localhost, evil.example\r\n\r\n",
    "user_in_host": b"GET /x HTTP/1.1\r\nHost: user@localhost\r\n\r\n",
    "path_in_host": b"GET /x HTTP/1.1\r\nHost: localhost/x\r\n\r\n",
    "space_in_host": b"GET /x HTTP/1.1\r\nHost: local host\r\n\r\n",
    "no_host": b"GET /x HTTP/1.1\r\nAccept: x\r\n\r\n",
    "nul_in_value": GOOD + b"X-A: a\x00b\r\n\r\n",
    "nul_in_name": GOOD + b"X-\x00A: a\r\n\r\n",
    "nul_in_target": b"GET /a\x00b HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "bare_cr_in_value": GOOD + b"X-A: a\rX-B: b\r\n\r\n",
    "bare_lf_lines": b"GET /x HTTP/1.1\nHost: localhost\n\n",
    "bare_lf_in_fields": GOOD + b"X-A: a\nX-B: b\r\n\r\n",
    "folded_field": GOOD + b"X-A: a\r\n b\r\n\r\n",
    "space_before_colon": GOOD + b"X-A : a\r\n\r\n",
    "space_before_name": b"GET /x HTTP/1.1\r\n Host: localhost\r\n\r\n",
    "no_colon": GOOD + b"X-A\r\n\r\n",
    "no_name": GOOD + b": a\r\n\r\n",
    "non_ascii_name": GOOD + b"X-\xe9: a\r\n\r\n",
    "user_in_target": b"GET http://user@localhost/x HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "empty_host": b"GET /x HTTP/1.1\r\nHost:\r\n\r\n",
    "space_in_target": b"GET /a b HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "authority_target": b"GET localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "asterisk_without_options": b"GET * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "no_host_in_target": b"GET http:///x HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "ftp_target": b"GET ftp://localhost/x HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "relative_target": b"GET x HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "no_version": b"GET /x\r\n\r\n",
    "http_2": b"GET /x HTTP/2.0\r\nHost: localhost\r\n\r\n",
    "http_2_preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "http_1_2": b"GET /x HTTP/1.2\r\nHost: localhost\r\n\r\n",
    "http_0_9": b"GET /x HTTP/0.9\r\nHost: localhost\r\n\r\n",
    "unknown_protocol": b"GET /x RTSP/1.0\r\nHost: localhost\r\n\r\n",
    "tls_hello": bytes.fromhex("16030100c8010000c40303") + b"\r\n\r\n",
    "rubbish": b"\x00\xff\r\n\r\n",
    "long_target": b"GET /" + b"a" * 13_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "long_field": GOOD + b"X-A: " + b"a" * 20_000 + b"\r\n\r\n",
    "too_many_fields": GOOD + b"X-A: a\r\n" * 500 + b"\r\n",
}


EXPECTED_ERRORS = {
    "long_target": (414, "target_too_long"),
    "long_field": (431, "head_too_large"),
    "too_many_fields": (431, "head_too_large"),
    "http_2": (505, "http_version_not_supported"),
    "http_0_9": (505, "http_version_not_supported"),
    "gzip_coding": (501, "not_implemented"),
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_a_malformed_request_is_rejected_and_not_forwarded(name: str) -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(MALFORMED[name] + request(b"GET", b"/smuggled"))
        response = await caller.response()
        status, code = EXPECTED_ERRORS.get(name, (400, "bad_request"))
        assert response.status_line.startswith(b"HTTP/1.1 %d " % status)
        assert response.json()["code"] == code
        assert response.values(b"Connection") == [b"close"]
        assert b"Proxy-Status" in response.head
        assert await caller.read_to_end() == b""
        assert upstream.connections == 0
        await proxy.check_idle()


async def test_a_malformed_request_after_a_valid_one_closes_the_connection_after_both_responses() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"POST", b"/good", body=b"abc"))
        exchange = await upstream.next_request()
        await caller.send(MALFORMED["two_different_lengths"])
        await exchange.respond(OK)
        assert (await caller.response()).body == b"ok"
        assert (await caller.response()).status == 400
        assert await caller.read_to_end() == b""
        assert len(upstream.requests) == 1


@pytest.mark.parametrize("version", [b"HTTP/2.0", b"HTTP/0.9"])
async def test_an_unsupported_http_version_gets_505(version: bytes) -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"GET", b"/x", version=version))
        response = await caller.response()
        assert response.status == 505
        assert response.json()["code"] == "http_version_not_supported"
        assert response.values(b"Connection") == [b"close"]
        assert await caller.read_to_end() == b""
        assert upstream.connections == 0


BAD_CHUNKS = {
    "size": b"zz\r\nabc\r\n",
    "sign": b"-3\r\nabc\r\n",
    "huge": b"fffffffffffffffffff\r\nabc",
    "too_long": b"3\r\nabcdef\r\n",
    "no_end": b"3\nabc\n",
}


@pytest.mark.parametrize("chunk", BAD_CHUNKS)
@pytest.mark.parametrize("when", ["at_once", "later"])
async def test_a_malformed_chunk_is_rejected_and_never_looks_like_the_end_of_the_body(
    chunk: str, when: str
) -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        head = request(b"POST", b"/x", b"Transfer-Encoding: chunked") + b"2\r\nok\r\n"
        if when == "at_once":
            await caller.send(head + BAD_CHUNKS[chunk])
        else:
            await caller.send(head)
            await upstream.next_request()
            await caller.send(BAD_CHUNKS[chunk])
        response = await caller.response()
        assert response.status == 400
        assert response.value(b"Connection") == b"close"
        assert await caller.read_to_end() == b""
        await proxy.check_idle()
        for exchange in upstream.requests:
            assert b"\r\n0\r\n" not in await exchange.read_to_end()
