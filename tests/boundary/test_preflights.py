"""CORS preflights: the proxy rejects them and sends no CORS field."""

import pytest

from support.proxy_harness import running_proxy
from support.raw_caller import RawCaller, request
from support.scripted_upstream import ScriptedUpstream

PREFLIGHT = (b"Access-Control-Request-Method: POST", b"Access-Control-Request-Private-Network: true")


@pytest.mark.parametrize("origin", [b"http://localhost", b"https://evil.example", b"null", None])
@pytest.mark.parametrize("listener", ["address", "admin_address"])
async def test_a_preflight_is_rejected_on_both_listeners_without_cors_fields(
    listener: str, origin: bytes | None
) -> None:
    lines = PREFLIGHT if origin is None else (b"Origin: " + origin, *PREFLIGHT)
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await RawCaller.connect(getattr(proxy, listener)) as caller,
    ):
        await caller.send(request(b"OPTIONS", b"/metrics", *lines))
        response = await caller.response()
        assert (response.status, response.json()["code"]) == (403, "forbidden_origin")
        assert b"access-control" not in response.head.lower()
        assert upstream.connections == 0
