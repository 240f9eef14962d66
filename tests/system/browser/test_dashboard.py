"""The dashboard in real Chromium: its values, its liveness, a restart, hostile names, sizes and access."""

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from support.commands.ports import free_port
from support.commands.process import proxy_to
from support.eventually import until
from support.proxy_harness import RunningProxy, running_proxy
from support.raw_caller import RawCaller, request
from support.scripted_upstream import ScriptedUpstream, responding

pytestmark = pytest.mark.system

_ROOT = Path(__file__).parents[3]
_PYTHON = _ROOT / ".venv-system" / "bin" / "python"
_DRIVER = Path(__file__).with_name("page_driver.py")
_WAIT_S = 60.0
_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
_NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
_UNAUTHORIZED = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"
_REFUSED = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 30\r\nContent-Length: 0\r\n\r\n"
HOSTILE = "<img src=x onerror=alert(1)></script><script>alert(2)</script>\"'&"


class Page:
    """The dashboard in a browser."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def _do(self, command: str, argument: str | None) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({command: argument}).encode() + b"\n")
        return await self.result()

    async def result(self) -> Any:
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), _WAIT_S)
        assert line, "the driver has ended; its standard error says why"
        return json.loads(line)

    async def js(self, expression: str) -> Any:
        return await self._do("js", expression)

    async def wait(self, expression: str) -> None:
        await self._do("wait", expression)

    async def press(self, key: str) -> None:
        await self._do("press", key)

    async def faults(self) -> list[str]:
        """Returns script errors, console messages, dialogs, and requests to other addresses."""
        faults: list[str] = await self._do("faults", None)
        return faults

    async def text(self, field: str) -> str:
        text: str = await self.js(f"document.querySelector('[data-f={field}]').textContent")
        return text

    async def rows(self, table: str) -> list[list[str]]:
        rows: list[list[str]] = await self.js(
            f"[...document.querySelector('[data-t={table}]').tBodies[0].rows]"
            ".map(row => [...row.cells].map(cell => cell.textContent))"
        )
        return rows

    async def shows(self, sentence: str) -> None:
        """Waits until the state contains this text."""
        await self.wait(f"document.querySelector('.sentence')?.textContent.includes({json.dumps(sentence)})")


@asynccontextmanager
async def dashboard(address: str, width: int = 1280, scheme: str = "light") -> AsyncIterator[Page]:
    process = await asyncio.create_subprocess_exec(
        *(str(_PYTHON), str(_DRIVER), f"http://{address}/", str(width), scheme),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if "proxy" not in name.lower()},
        limit=2**20,
    )
    page = Page(process)
    try:
        assert await page.result() == "ready"
        await page.wait("document.querySelector('.environment') !== null")
        yield page
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), _WAIT_S)
        except TimeoutError:
            process.kill()
            await process.wait()


async def _get(proxy: RunningProxy, path: bytes) -> bytes:
    async with await RawCaller.connect(proxy.admin_address) as admin:
        return (await admin.get(path)).body


async def _metric(proxy: RunningProxy, name: str) -> float:
    """Returns the sum of all samples of a metric."""
    text = (await _get(proxy, b"/metrics")).decode()
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE))


@asynccontextmanager
async def _waiting(proxy: RunningProxy, *names: str) -> AsyncIterator[None]:
    """Requests of these callers, which wait because the first one got a 429."""
    async with AsyncExitStack() as stack:
        for name in names:
            caller = await stack.enter_async_context(await proxy.caller())
            count = proxy.waiting
            await caller.send(request(b"GET", b"/", b"X-Caller: " + name.encode()))
            await until(lambda count=count: proxy.waiting > count)
        yield


async def test_the_values_are_those_of_the_status_and_of_the_metrics() -> None:
    responses = [_OK, _OK, _OK, _NOT_FOUND, _REFUSED]

    async def respond(exchange: Any) -> None:
        await exchange.respond(responses.pop(0) if len(responses) > 1 else responses[0])

    async with (
        ScriptedUpstream(respond) as upstream,
        running_proxy(upstream.origin, caller_header="x-caller", max_wait="60s") as proxy,
        await proxy.caller() as caller,
    ):
        for _ in range(4):
            await caller.get(b"/api/v4/workflows")
        async with _waiting(proxy, "a", "a", "b"), dashboard(proxy.admin_address) as page:
            await page.shows("Waiting for Nanonets: 2 callers with 3 requests, next permit in ")
            status = json.loads(await _get(proxy, b"/status"))["environments"][0]
            served = await page.js("document.querySelector('.served span').dataset.total")
            assert int(served) == sum(status["requests"]["served"]) == 3
            finished = sum(sum(status["requests"][name]) for name in ("served", "client_errors"))
            assert finished == await _metric(proxy, "nanonets_proxy_requests_total") == 4
            assert await page.text("waiting") == "3 from 2 callers"
            assert status["gate"]["waiting"] == await _metric(proxy, "nanonets_proxy_waiting") == 3
            assert await page.rows("lanes") == [["a", "account", "2", "unknown"], ["b", "account", "1", "unknown"]]
            (scope,) = await page.rows("scopes")
            assert (scope[0], scope[1], scope[4]) == ("account", "closed", "3")
            (key,) = await page.rows("keys")
            assert key[1] == status["keys"]["keys"][0]["fingerprint"]
            problems = await page.js("document.querySelector('[data-f=problems]').textContent")
            assert "upstream_404" in problems
            assert status["problems"][0]["request_id"] in problems
            assert await page.js("document.querySelector('.state').dataset.level") == "wait"
            assert await page.text("cause") == "Look at: the rate limit of Nanonets"
            assert await page.faults() == []


async def test_a_change_shows_within_two_seconds() -> None:
    """A second until the next event, and another one for the browser. A busy machine may delay some changes."""
    async with (
        ScriptedUpstream(responding(_OK)) as upstream,
        running_proxy(upstream.origin) as proxy,
        dashboard(proxy.admin_address) as page,
        await proxy.caller() as caller,
    ):
        await page.wait("document.querySelector('.served span').dataset.total === '0'")
        shown_after_s = []
        for count in range(1, 6):
            began_s = monotonic()
            await caller.get(b"/api/v4/workflows")
            await page.wait(f"document.querySelector('.served span').dataset.total === '{count}'")
            shown_after_s.append(monotonic() - began_s)
        assert min(shown_after_s) < 2.0


async def test_the_page_survives_a_restart_of_the_proxy() -> None:
    address = f"127.0.0.1:{free_port()}"
    async with ScriptedUpstream(responding(_OK)) as upstream, AsyncExitStack() as stack:
        async with running_proxy(upstream.origin, admin_listen=address) as proxy, await proxy.caller() as caller:
            page = await stack.enter_async_context(dashboard(address))
            await caller.get(b"/")
            await page.wait("document.querySelector('.served span').dataset.total === '1'")
        await page.wait("document.querySelector('.link').dataset.link === 'lost'")
        assert (await page.text("link")).startswith("No connection to the proxy: the data is of ")
        async with running_proxy(upstream.origin, admin_listen=address):
            await page.wait("document.querySelector('.link').dataset.link === 'live'")
            await page.wait("document.querySelector('.served span').dataset.total === '0'")


async def test_a_hostile_name_is_text() -> None:
    async with (
        ScriptedUpstream(responding(_REFUSED)) as upstream,
        running_proxy(upstream.origin, caller_header="x-caller", max_wait="60s") as proxy,
        _waiting(proxy, HOSTILE),
        dashboard(proxy.admin_address) as page,
    ):
        await page.shows("1 caller")
        assert (await page.rows("lanes"))[0][0] == HOSTILE[:64]
        assert await page.js("document.querySelectorAll('main img, main script').length") == 0
        assert await page.faults() == []


@pytest.mark.parametrize("width", [375, 768, 1280, 1920])
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_page_fits_each_width_and_follows_the_theme(width: int, scheme: str, tmp_path: Path) -> None:
    ledger = str(tmp_path / "usage.db")
    async with (
        ScriptedUpstream(responding(_REFUSED)) as upstream,
        running_proxy(upstream.origin, caller_header="x-caller", max_wait="60s", ledger=ledger) as proxy,
        _waiting(proxy, "a" * 100, HOSTILE, "b"),
        dashboard(proxy.admin_address, width, scheme) as page,
    ):
        await page.shows("Waiting")
        await page.js("for (const part of document.querySelectorAll('details')) part.open = true")
        await page.wait("document.querySelector('[data-f=minutes] tbody').rows.length === 60")
        await page.wait("document.querySelector('[data-t=usage]').tBodies[0].rows.length === 1")
        assert await page.js("document.documentElement.scrollWidth") <= width
        parts: dict[str, list[int]] = await page.js(_PARTS)
        assert len(parts) == 5
        assert {name: widths for name, widths in parts.items() if not 0 < widths[0] <= widths[1]} == {}
        ground = await page.js("getComputedStyle(document.body).backgroundColor")
        red = int(re.findall(r"\d+", ground)[0])
        assert red > 200 if scheme == "light" else red < 60
        assert await page.js(_LOWEST_CONTRAST) >= 4.5, "WCAG 2.2, 1.4.3"


_PARTS = """Object.fromEntries([...document.querySelectorAll(".scroll")]
  .map(part => [part.ariaLabel, [part.scrollWidth, part.clientWidth]]))"""


_LOWEST_CONTRAST = """(() => {
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const luminance = color => color.slice(0, 3).map(value => value / 255)
    .map(value => value <= .04045 ? value / 12.92 : ((value + .055) / 1.055) ** 2.4)
    .reduce((sum, value, at) => sum + value * [.2126, .7152, .0722][at], 0);
  const ground = node => {
    for (; node; node = node.parentElement) {
      const color = parse(getComputedStyle(node).backgroundColor);
      if (color.length < 4 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  let lowest = 21;
  for (const node of document.querySelectorAll("h1, h2, h3, p, dt, dd, th, td, li span, small, a, code, summary")) {
    if (!node.textContent.trim() || !node.getClientRects().length || node.matches(".skip, .spoken")) continue;
    const a = luminance(parse(getComputedStyle(node).color)), b = luminance(ground(node));
    lowest = Math.min(lowest, (Math.max(a, b) + .05) / (Math.min(a, b) + .05));
  }
  return lowest;
})()"""


async def test_without_a_usable_key_the_page_promises_no_permit() -> None:
    async with (
        ScriptedUpstream(responding(*[_UNAUTHORIZED] * 8)) as upstream,
        running_proxy(upstream.origin, key_gap="0s") as proxy,
        await proxy.caller() as caller,
        dashboard(proxy.admin_address) as page,
    ):
        for path in (b"/api/v4/workflows", b"/api/v4/workflow_types", b"/api/v4/workflows/w"):
            await caller.get(path)
        await page.wait("document.querySelector('.state').dataset.code === 'no_key'")
        assert await page.js("document.querySelector('.state').dataset.level") == "bad"
        assert await page.text("next") == "with a new key"
        assert await page.faults() == []


async def test_a_keyboard_and_a_screen_reader_can_use_the_page() -> None:
    async with (
        ScriptedUpstream(responding(_OK)) as upstream,
        running_proxy(upstream.origin) as proxy,
        dashboard(proxy.admin_address) as page,
        await proxy.caller() as caller,
    ):
        await caller.get(b"/")
        await page.wait("document.querySelector('.served span').dataset.total === '1'")
        await page.press("Tab")
        assert await page.js("document.activeElement.className") == "skip"
        await page.press("Enter")
        await page.press("Tab")
        assert await page.js("document.activeElement.tagName") == "SUMMARY"
        await page.press("Enter")
        await page.wait("document.querySelector('[data-f=minutes] tbody').rows.length === 60")
        assert await page.js("document.querySelector('[role=status]').textContent") == await page.text("sentence")
        label = await page.js("document.querySelector('[data-f=requests]').getAttribute('aria-label')")
        assert label == "Requests of the last hour: 1 served, 0 4xx, 0 429, 0 5xx, 0 caller gone"
        unnamed = (
            "[...document.querySelectorAll('[role=region], svg[role=img]')].filter(node => !node.ariaLabel).length"
        )
        assert await page.js(unnamed) == 0
        headings = await page.js("[...document.querySelectorAll('h1, h2, h3')].map(node => node.tagName)")
        assert headings[:3] == ["H1", "H2", "H3"]
        assert await page.js("document.querySelectorAll('form, button, input').length") == 0
        assert await page.js("[...document.querySelectorAll('svg rect')].every(bar => bar.ariaHidden === 'true')")
        for empty in ("lanes", "scopes"):
            await page.wait(f"document.querySelector('[data-t={empty}]').tBodies[0].rows.length === 0")
        focused = [await _next_focus(page) for _ in range(3)]
        assert focused == ["The last hour as a table", "API keys", ""]  # not the empty tables


async def _next_focus(page: Page) -> str:
    """Presses Tab, and returns the label of the element that gets the focus, which must be visible."""
    await page.press("Tab")
    assert await page.js("document.activeElement.offsetHeight > 0")
    return str(await page.js("document.activeElement.ariaLabel ?? ''"))


async def test_a_replica_of_a_fleet_shows_its_role() -> None:
    """Nothing listens at the server of coordination, so the replica is alone."""
    for arguments, is_shown in ((("--coordination", "redis://127.0.0.1:1"), True), ((), False)):
        with proxy_to("http://127.0.0.1:1", *arguments) as proxy:
            async with dashboard(proxy.admin_url.removeprefix("http://")) as page:
                await page.shows("Ready")
                assert await page.js("document.querySelector('[data-f=fleet]').offsetHeight > 0") is is_shown
                assert await page.text("fleet") == ("alone, 1 replica" if is_shown else "")
                assert await page.faults() == []


async def test_jobs_are_shown_only_where_they_are_on(tmp_path: Path) -> None:
    """Nothing listens at the upstream, so the job goes back to the queue."""
    for arguments, is_shown in ((("--jobs", str(tmp_path / "jobs")), True), ((), False)):
        with proxy_to("http://127.0.0.1:1", *arguments) as proxy:
            async with dashboard(proxy.admin_url.removeprefix("http://")) as page:
                await page.shows("Ready")
                assert await page.js("document.querySelector('[data-f=jobs]').offsetHeight > 0") is is_shown
                if is_shown:
                    assert await page.text("jobs") == "0 of 10,000, 0 sending, 0 unknown"
                    async with await RawCaller.connect(proxy.url.removeprefix("http://")) as caller:
                        await caller.send(request(b"POST", b"/x", b"Prefer: respond-async", body=b"{}"))
                        assert (await caller.response()).status == 202
                    await page.wait("document.querySelector('[data-f=jobs]').textContent.startsWith('1 of ')")
                assert await page.faults() == []
