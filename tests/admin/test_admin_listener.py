"""The admin listener beside the callers' listener, in a running proxy."""

from support.proxy_harness import running_proxy
from support.raw_caller import RawCaller, request
from support.scripted_upstream import ScriptedUpstream


async def test_the_admin_listener_reports_a_running_proxy_without_the_upstream() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await RawCaller.connect(proxy.admin_address) as admin,
    ):
        assert (await admin.get(b"/readyz")).status == 200
        assert upstream.connections == 0


async def test_the_admin_listener_can_be_switched_off() -> None:
    async with ScriptedUpstream() as upstream, running_proxy(upstream.origin, admin_listen="off") as proxy:
        assert proxy.program.admin_listening.addresses == []


async def test_admin_paths_on_the_callers_listener_go_to_the_upstream() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"GET", b"/metrics"))
        exchange = await upstream.next_request()
        assert exchange.lines[0] == b"GET /metrics HTTP/1.1"
        await exchange.respond(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        assert (await caller.response()).status == 404
