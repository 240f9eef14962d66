"""Settings that change while the proxy serves: what each connection, request and component does then."""

import asyncio
import ssl
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme

from nanonets_proxy.app.config import ServeConfig
from nanonets_proxy.app.program import SettingsReload
from nanonets_proxy.app.reloading import ChangedSetting, NewSettings, SettingsUnusable
from nanonets_proxy.core.access.caller_tokens import CallerToken
from nanonets_proxy.core.access.token_text import TOKEN_BYTES, make_token
from support.eventually import until
from support.proxy_harness import RunningProxy, running_proxy, serve_config
from support.raw_caller import RawCaller
from support.scripted_upstream import OK, ScriptedUpstream, responding

A = ChangedSetting("of_the_test", 0, 1)
TOKENS_OF_NO_FILE = {"caller_tokens_file": "/none"}
TOKEN = make_token(b"t" * TOKEN_BYTES)


def change(proxy: RunningProxy, **overrides: Any) -> None:
    """Applies the settings of a test with these overrides, as a reload does."""
    proxy.program._apply(NewSettings(serve_config(**overrides), (A,), ()), lambda _: None)


async def test_the_advice_to_restart_names_eight_settings_and_says_how_many_more_there_are() -> None:
    async with ScriptedUpstream() as upstream, running_proxy(upstream.origin) as proxy:
        fixed = tuple(ChangedSetting(f"setting_{number}", 0, 1) for number in range(20))
        proxy.program._apply(NewSettings(serve_config(), (), fixed[:8]), lambda _: None)
        alerts = proxy.program.environments[0].alerts
        names = ", ".join(f"setting_{number}" for number in range(8))
        assert alerts.to_json()[0]["advice"] == f"restart the proxy to apply {names}"
        proxy.program._apply(NewSettings(serve_config(), (), fixed), lambda _: None)
        (alert,) = alerts.to_json()
        assert alert["advice"] == f"restart the proxy to apply {names} and 12 more"
        assert len(alert["settings"]) == 20


async def test_alerts_about_a_reload_are_shown_until_a_later_one_ends_their_cause() -> None:
    async with ScriptedUpstream() as upstream, running_proxy(upstream.origin) as proxy:
        results = iter([SettingsUnusable("np.toml:3: no"), ((), (A,)), ((), ())])

        async def read(config: ServeConfig) -> NewSettings:
            result = next(results)
            if isinstance(result, SettingsUnusable):
                raise result
            return NewSettings(config, *result)

        proxy.program._settings = SettingsReload(read, lambda _: None)
        seen = []
        for _ in range(3):
            await proxy.program.reload()
            alerts = proxy.program.environments[0].alerts
            seen.append([alert["event"] for alert in alerts.to_json()])
            assert all(alert.is_lasting for alert in alerts._alerts.values() if alert.at_s > 0)
        assert seen == [["reload_rejected"], ["restart_needed"], []]


async def test_waiting_callers_keep_their_place_when_limits_scopes_and_weights_change() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin, pool_size="1", scopes="GET /a -> first", caller_header="X-Caller") as proxy,
        proxy.callers(5) as callers,
    ):
        tasks = []
        for number, caller in enumerate(callers[:4]):
            path = b"/a?%d" % number
            tasks.append(asyncio.create_task(caller.get(path, b"X-Caller: one")))
            await until(lambda number=number: proxy.in_flight + proxy.waiting == number + 1)
        change(proxy, scopes="GET /a -> second", limits="first 100/s", lane_weights="two=5", pool_size="1")
        late = asyncio.create_task(callers[4].get(b"/a?4"))
        await until(lambda: proxy.waiting == 4)
        seen = []
        for _ in range(5):
            exchange = await upstream.next_request()
            seen.append(exchange.lines[0].split()[1])
            await exchange.respond(OK)
        assert [target for target in seen if target != b"/a?4"] == [b"/a?0", b"/a?1", b"/a?2", b"/a?3"]
        assert {response.status for response in await asyncio.gather(*tasks, late)} == {200}


async def test_more_places_are_used_at_once_by_waiting_callers() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin, pool_size="1") as proxy,
        proxy.callers(3) as callers,
    ):
        tasks = [asyncio.create_task(caller.get(b"/x")) for caller in callers]
        await until(lambda: (proxy.in_flight, proxy.waiting) == (1, 2))
        change(proxy, pool_size="3")
        assert (proxy.in_flight, proxy.waiting) == (3, 0)
        for _ in range(3):
            await (await upstream.next_request()).respond(OK)
        assert {response.status for response in await asyncio.gather(*tasks)} == {200}


async def test_an_open_connection_uses_the_new_settings_from_its_next_request_on() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        first = asyncio.create_task(caller.get(b"/x", b"X-Caller: billing"))
        exchange = await upstream.next_request()
        change(proxy, via="changed", caller_header="X-Caller", server_timing=False, read_only=True)
        await exchange.respond(OK)
        response = await first
        assert response.value(b"Via") == b"1.1 nanonets-proxy", "the request keeps what it began with"
        assert response.values(b"Server-Timing")
        second = asyncio.create_task(caller.get(b"/x", b"X-Caller: billing"))  # the same header section
        exchange = await upstream.next_request()
        assert proxy.proxy._gate._places._lanes["billing"].held == 1, "the caller has its new name"
        await exchange.respond(OK)
        response = await second
        assert response.value(b"Via") == b"1.1 changed"
        assert not response.values(b"Server-Timing")
        assert (await caller.post(b"/x", b"")).status == 403


@pytest.mark.usefixtures("one_day")
async def test_tokens_and_budgets_can_be_required_and_dropped_and_counts_stay() -> None:
    tokens = str(CallerToken.of("billing", TOKEN))
    bearer = b"Authorization: Bearer " + TOKEN.encode()
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        assert (await caller.get(b"/x")).status == 200
        change(proxy, caller_tokens=tokens, daily_budget="2")
        async with await proxy.caller() as stranger:
            assert (await stranger.get(b"/x")).status == 401
        assert (await caller.get(b"/x", bearer)).status == 200
        change(proxy, caller_tokens=tokens, daily_budget="1")
        assert (await caller.get(b"/x", bearer)).status == 429
        change(proxy)
        assert proxy.proxy._access.authorizer is None
        assert (await caller.get(b"/x")).status == 200
        change(proxy, read_only=True)
        assert (await caller.post(b"/x", b"")).status == 403


def watched_callers(proxy: RunningProxy) -> object:
    authorizer = proxy.proxy._access.authorizer
    assert authorizer is not None
    return authorizer._callers


async def test_a_file_of_tokens_is_watched_from_the_reload_on(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"{CallerToken.of('billing', TOKEN)}\n")
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        change(proxy, caller_tokens_file=str(file))
        (watched,) = proxy.proxy._access.files
        change(proxy, caller_tokens_file=str(file), max_wait="7s")
        assert proxy.proxy._access.files == [watched], "an unchanged file stays watched"
        assert (await caller.get(b"/x", b"Authorization: Bearer " + TOKEN.encode())).status == 200
        callers = watched_callers(proxy)
        file.write_text(f"{CallerToken.of('other', make_token(b'u' * TOKEN_BYTES))}\n")
        await until(lambda: watched_callers(proxy) is not callers)
        change(proxy)
        assert proxy.proxy._access.files == []


async def test_peers_that_may_not_call_any_more_lose_their_connections_after_the_response() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as busy,
        await proxy.caller() as idle,
    ):
        pending = asyncio.create_task(busy.get(b"/x"))
        exchange = await upstream.next_request()
        # Loopback may always call, so the test takes that right away from the guard itself.
        for connection in proxy.proxy._server._caller_connections():
            connection.peer = type(connection.peer)("far", "203.0.113.7")
        change(proxy)
        assert await idle.read_to_end() == b""
        await exchange.respond(OK)
        assert (await pending).status == 200
        assert await busy.read_to_end() == b""


async def test_idle_connections_to_the_upstream_end_when_the_way_to_it_changes() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        proxy.callers(2) as callers,
    ):
        first = asyncio.create_task(callers[0].get(b"/x"))
        await (await upstream.next_request()).respond(OK)
        assert (await first).status == 200
        busy = asyncio.create_task(callers[1].get(b"/x"))
        exchange = await upstream.next_request()
        change(proxy, connect_timeout="3s")
        await exchange.respond(OK)
        assert (await busy).status == 200
        assert proxy.proxy._upstream.pool.idle == 0, "nor does the busy one serve another request"
        change(proxy, connect_timeout="3s", upstream_keep_alive="1h", first_byte_timeout="9s")
        third = asyncio.create_task(callers[0].get(b"/x"))
        await (await upstream.next_request()).respond(OK)
        assert (await third).status == 200
        change(proxy, connect_timeout="3s", upstream_keep_alive="2h", pool_per_caller=True)
        assert proxy.proxy._upstream.pool.idle == 1


async def test_a_shorter_keep_alive_closes_idle_connections_sooner() -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin, keep_alive="1h") as proxy,
        await proxy.caller() as caller,
    ):
        assert (await caller.get(b"/x")).status == 200
        change(proxy, keep_alive="1ms")
        assert await caller.read_to_end() == b""


def certificate(folder: Path, authority: trustme.CA) -> dict[str, str]:
    """Writes a certificate for the listener. Returns the settings that name it."""
    folder.mkdir()
    issued = authority.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    return {"tls_cert": str(folder / "cert.pem"), "tls_key": str(folder / "key.pem")}


async def test_new_connections_get_another_certificate_and_a_missing_file_changes_nothing(tmp_path: Path) -> None:
    authority, other = trustme.CA(), trustme.CA()
    files, other_files = certificate(tmp_path / "a", authority), certificate(tmp_path / "b", other)
    old, new = ssl.create_default_context(), ssl.create_default_context()
    authority.configure_trust(old)
    other.configure_trust(new)
    for context in (old, new):
        context.check_hostname = False
    async with ScriptedUpstream(responding(OK)) as upstream, running_proxy(upstream.origin, **files) as proxy:
        with pytest.raises(SettingsUnusable, match="No such file"):
            change(proxy, via="changed", **files | {"tls_cert": str(tmp_path / "none")})
        async with await RawCaller.connect(proxy.address, old) as caller:
            assert (await caller.get(b"/x")).value(b"Via") == b"1.1 nanonets-proxy"
        change(proxy, **other_files)
        async with await RawCaller.connect(proxy.address, new) as caller:
            assert (await caller.get(b"/x")).status == 200
        assert [file.path.parent.name for file in proxy.proxy._access.files] == ["b", "b"]


async def test_settings_apply_to_all_environments_or_to_none() -> None:
    async with ScriptedUpstream(responding(OK)) as upstream, running_proxy(upstream.origin) as proxy:
        program, environment = proxy.program, proxy.proxy
        usable, unusable = (serve_config(via="changed", **more).environments[0] for more in ({}, TOKENS_OF_NO_FILE))
        program.environments = [environment, environment]
        with pytest.raises(SettingsUnusable):
            program._apply(
                NewSettings(replace(serve_config(), environments=(usable, unusable)), (A,), ()), lambda _: None
            )
        program.environments = [environment]
        async with await proxy.caller() as caller:
            assert (await caller.get(b"/x")).value(b"Via") == b"1.1 nanonets-proxy"


async def test_a_first_limit_in_pages_starts_the_counter_of_pages() -> None:
    async with ScriptedUpstream(responding(OK)) as upstream, running_proxy(upstream.origin) as proxy:
        pages = proxy.proxy._pages
        assert (pages.costs, pages.uploads) == (None, None)
        change(proxy, limits="account 20 pages/minute")
        assert pages._counter is not None
        assert pages.uploads is not None
        counter = pages._counter
        await until(counter._ready.is_set)
        change(proxy)
        assert (pages.costs, pages.uploads) == (None, None)
        change(proxy, limits="account 30 pages/minute")
        assert pages._counter is counter


async def test_a_loosened_boundary_is_warned_about_once(capsys: pytest.CaptureFixture[str]) -> None:
    async with ScriptedUpstream() as upstream, running_proxy(upstream.origin) as proxy:
        for _ in range(2):
            change(proxy, allowed_hosts="proxy.example")
    assert capsys.readouterr().out.count("boundary_loosened") == 1
