"""The dashboard's page: small, self-contained, and protected by its policy. tests/system tests it in a browser."""

import asyncio
import re
from base64 import b64encode
from hashlib import sha256

from prometheus_client import CollectorRegistry

from nanonets_proxy.admin.dashboard import dashboard
from nanonets_proxy.admin.endpoints import ReloadResult
from nanonets_proxy.admin.server import AdminHandler, admin_connection_policy
from nanonets_proxy.core.access.peer_guard import PeerGuard
from nanonets_proxy.core.access.peer_guard_policy import PeerGuardPolicy
from nanonets_proxy.server.server import CallerServer
from nanonets_proxy.telemetry.alerts import Alerts
from support.proxy_harness import running_proxy
from support.raw_caller import RawCaller
from support.scripted_upstream import ScriptedUpstream

_MAX_BYTES = 40 * 1024


def _page() -> str:
    return dashboard()[0].decode()


async def test_the_admin_listener_serves_the_page_with_its_protection() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await RawCaller.connect(proxy.admin_address) as admin,
    ):
        response = await admin.get(b"/")
        assert (response.status, response.body) == (200, dashboard()[0])
        assert response.value(b"Content-Type") == b"text/html; charset=utf-8"
        assert response.value(b"Content-Security-Policy").startswith(b"default-src 'none'; ")
        assert response.value(b"X-Frame-Options") == b"DENY"


def test_the_page_is_small_and_names_no_other_address() -> None:
    assert len(dashboard()[0]) <= _MAX_BYTES
    addresses = set(re.findall(r"\w+://[^\s\"'<>]*|src=|@import|url\(", _page()))
    assert addresses == {"http://www.w3.org/2000/svg"}, "the name of the SVG namespace, which nobody loads"


def test_the_policy_permits_only_the_page_own_script_and_style() -> None:
    page, policy = _page(), dashboard()[1]["Content-Security-Policy"]
    for tag in ("script", "style"):
        (text,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        assert f"{tag}-src 'sha256-{b64encode(sha256(text.encode()).digest()).decode()}';" in policy
    assert "unsafe" not in policy
    assert re.findall(r" on\w+=| style=", page) == []


def test_the_page_can_send_nothing_and_writes_no_markup() -> None:
    page = _page()
    for dangerous in ("<form", "<button", "<input", "fetch(", "XMLHttpRequest", "sendBeacon", "innerHTML", "eval("):
        assert dangerous not in page
    assert "form-action 'none'" in dashboard()[1]["Content-Security-Policy"]


async def test_a_key_that_is_a_word_of_the_page_leaves_it_whole() -> None:
    registry, guard = CollectorRegistry(), PeerGuard(PeerGuardPolicy())
    alerts = Alerts(CollectorRegistry())
    handler = AdminHandler(
        guard, registry, [], reload=_reload, redact=lambda body: body.replace(b"use strict", b"X"), alerts=alerts
    )
    server = CallerServer(handler, guard, admin_connection_policy(16, 1000), registry, alerts)
    listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    async with await RawCaller.connect("{}:{}".format(*listener.sockets[0].getsockname())) as admin:
        assert (await admin.get(b"/")).body == dashboard()[0]
    listener.close()
    await server.drain(1.0)


async def _reload() -> ReloadResult:
    raise AssertionError("nobody reloads")
