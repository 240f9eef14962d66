"""The admin listener by itself, with environments that the tests control."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import ClientSession
from prometheus_client import CollectorRegistry, Counter

from nanonets_proxy.admin.endpoints import MAX_RELOADS, ReloadResult
from nanonets_proxy.admin.server import AdminHandler, admin_connection_policy
from nanonets_proxy.core.access.peer_guard import PeerGuard
from nanonets_proxy.core.access.peer_guard_policy import PeerGuardPolicy
from nanonets_proxy.core.status.document import KeyEntry, KeysStatus
from nanonets_proxy.server.server import CallerServer
from nanonets_proxy.telemetry.alerts import Alerts
from support.eventually import until

KEY = {
    "source": "env",
    "state": "serving",
    "keys": [{"name": "a", "fingerprint": "f", "state": "active", "age_s": 5}],
}


@dataclass
class SettableEnvironment:
    """An environment whose reasons the test sets."""

    name: str = ""
    not_ready: str | None = None
    not_reloaded: str | None = None
    reloads: int = 0
    may_reload: asyncio.Event | None = None
    alerts: Alerts = field(default_factory=lambda: Alerts(CollectorRegistry()))

    def not_ready_reason(self) -> str | None:
        return self.not_ready

    def key_status(self) -> KeysStatus:
        keys = (KeyEntry("a", "f", "active", 5),)
        return KeysStatus("env", "serving", is_rejected=False, keys=keys, warnings=(), source_fault=None)

    async def reload(self) -> str | None:
        self.reloads += 1
        if self.may_reload is not None:
            await self.may_reload.wait()
        return self.not_reloaded


Start = Callable[..., Awaitable[ClientSession]]
ASKED = {"X-Requested-With": "test"}
NOTHING_CHANGED = ReloadResult(None, (), (), ())


@pytest_asyncio.fixture
async def admin() -> AsyncIterator[Start]:
    """`await admin(*environments)` starts the listener and returns a client."""
    async with AsyncExitStack() as stack:

        async def start(
            *environments: SettableEnvironment, result: ReloadResult = NOTHING_CHANGED, **options: Any
        ) -> ClientSession:
            registry, guard = CollectorRegistry(), PeerGuard(PeerGuardPolicy())
            Counter("of_the_test", "A counter.", registry=registry).inc()

            async def reload() -> ReloadResult:
                return replace(result, faults=[await environment.reload() for environment in environments])

            alerts = Alerts(CollectorRegistry())
            handler = AdminHandler(guard, registry, environments, reload, alerts=alerts, **options)
            policy = admin_connection_policy(16, 1000)
            server = CallerServer(handler, guard, policy, registry, alerts)
            listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
            stack.push_async_callback(server.drain, 1.0)
            stack.callback(listener.close)
            port = listener.sockets[0].getsockname()[1]
            return await stack.enter_async_context(ClientSession(f"http://127.0.0.1:{port}"))

        yield start


@pytest.mark.parametrize(
    ("method", "path", "fields", "status"),
    [
        ("GET", "/livez", {}, 200),
        ("HEAD", "/readyz", {}, 200),
        ("GET", "/metrics", {}, 200),
        ("GET", "/elsewhere", {}, 404),
        ("POST", "/livez", {}, 405),
        ("TRACE", "/livez", {}, 405),
        ("GET", "/livez?verbose=1", {}, 200),
        ("GET", "/reload", {}, 405),
        ("POST", "/reload", ASKED, 200),
        ("POST", "/reload", {}, 403),
        ("POST", "/quitquitquit", ASKED, 404),
        ("GET", "/livez", {"Origin": "https://evil.example"}, 403),
        ("GET", "/livez", {"Sec-Fetch-Site": "cross-site"}, 403),
        ("GET", "/metrics", {"Host": "evil.example"}, 403),
        ("POST", "/reload", {"Origin": "https://evil.example"}, 403),
    ],
)
async def test_the_admin_listener_responds_behind_the_guard(
    admin: Start, method: str, path: str, fields: dict[str, str], status: int
) -> None:
    environment = SettableEnvironment()
    client = await admin(environment)
    async with client.request(method, path, headers=fields) as response:
        assert response.status == status
        assert response.headers.getall("Server") == ["nanonets-proxy"]
    assert environment.reloads == (status == 200 and path == "/reload")


async def test_a_rejected_request_gets_an_error_response_of_the_callers_shape(admin: Start) -> None:
    client = await admin(SettableEnvironment())
    async with client.get("/metrics", headers={"Host": "evil.example"}) as response:
        error = await response.json()
        assert (error["code"], error["details"]) == ("forbidden_host", {"host": "evil.example"})
        assert "X-Request-Id" not in response.headers


async def test_metrics_are_the_registrys_in_prometheus_format(admin: Start) -> None:
    client = await admin(SettableEnvironment())
    async with client.get("/metrics") as response:
        assert response.headers["Content-Type"].startswith("text/plain; version=")
        assert "of_the_test_total 1.0" in await response.text()


@pytest.mark.parametrize(
    ("method", "path", "status", "good", "bad", "more"),
    [
        ("GET", "/readyz", 200, "ready", "not ready", {}),
        ("POST", "/reload", 200, "reloaded", "not reloaded", {"settings": {"changed": [], "needs_restart": []}}),
    ],
)
async def test_a_status_has_the_reason_and_the_keys(
    admin: Start, method: str, path: str, status: int, good: str, bad: str, more: dict[str, Any]
) -> None:
    environment = SettableEnvironment()
    client = await admin(environment)
    async with client.request(method, path, headers=ASKED) as response:
        assert (response.status, await response.json()) == (status, {"status": good, "key": KEY} | more)
    environment.not_ready = environment.not_reloaded = "draining"
    async with client.request(method, path, headers=ASKED) as response:
        assert response.status == 503
        assert await response.json() == {"status": bad, "reason": "draining", "key": KEY} | more


async def test_readyz_shows_the_alerts_of_an_environment(admin: Start) -> None:
    environment = SettableEnvironment()
    client = await admin(environment)
    environment.alerts.report("disk_filled", "make room", free_bytes=0)
    async with client.get("/readyz") as response:
        assert response.status == 200
        (alert,) = (await response.json())["alerts"]
    assert (alert["event"], alert["advice"], alert["free_bytes"]) == ("disk_filled", "make room", 0)


async def test_a_reload_names_the_settings_that_apply_and_those_that_need_a_restart(admin: Start) -> None:
    result = ReloadResult(None, ["max_wait", "limits"], ["listen"], ())
    client = await admin(SettableEnvironment(), result=result)
    async with client.post("/reload", headers=ASKED) as response:
        assert response.status == 200
        body = await response.json()
    assert body["settings"] == {"changed": ["max_wait", "limits"], "needs_restart": ["listen"]}


@pytest.mark.parametrize(
    ("names", "not_reloaded", "reason"),
    [
        ([""], None, "settings.toml:3: Invalid value"),
        ([""], "the file is empty", "settings.toml:3: Invalid value; the file is empty"),
        (["eu", "us"], None, "settings.toml:3: Invalid value"),
    ],
)
async def test_a_reload_of_unusable_settings_fails_with_the_reason(
    admin: Start, names: list[str], not_reloaded: str | None, reason: str
) -> None:
    environments = [SettableEnvironment(name, not_reloaded=not_reloaded) for name in names]
    client = await admin(*environments, result=ReloadResult("settings.toml:3: Invalid value", (), (), ()))
    async with client.post("/reload", headers=ASKED) as response:
        body = await response.json()
        assert (response.status, body["status"], body["reason"]) == (503, "not reloaded", reason)
    assert [environment.reloads for environment in environments] == [1] * len(names)


async def test_several_environments_are_reported_by_name_and_fail_together(admin: Start) -> None:
    client = await admin(SettableEnvironment("eu"), SettableEnvironment("us", not_ready="starting"))
    async with client.get("/readyz") as response:
        assert response.status == 503
        assert await response.json() == {
            "status": "not ready",
            "environments": {
                "eu": {"status": "ready", "key": KEY},
                "us": {"status": "not ready", "reason": "starting", "key": KEY},
            },
        }


async def test_reload_reaches_every_environment_even_if_one_fails(admin: Start) -> None:
    environments = SettableEnvironment("eu", not_reloaded="the file is empty"), SettableEnvironment("us")
    client = await admin(*environments)
    async with client.post("/reload", headers=ASKED) as response:
        assert response.status == 503
    assert [environment.reloads for environment in environments] == [1, 1]


async def test_waiting_reloads_leave_connections_for_the_health_checks(admin: Start) -> None:
    environment = SettableEnvironment(may_reload=asyncio.Event())
    client = await admin(environment)
    waiting = [asyncio.create_task(client.post("/reload", headers=ASKED)) for _ in range(MAX_RELOADS)]
    await until(lambda: environment.reloads == MAX_RELOADS)
    async with client.post("/reload", headers=ASKED) as response:
        assert (response.status, (await response.json())["status"]) == (503, "not reloaded")
    async with client.get("/livez") as response:
        assert response.status == 200
    assert environment.may_reload is not None
    environment.may_reload.set()
    assert {response.status for response in await asyncio.gather(*waiting)} == {200}


@pytest.mark.parametrize(("path", "allowed"), [("/livez", "GET, HEAD"), ("/reload", "POST")])
async def test_a_rejected_method_is_told_the_allowed_ones(admin: Start, path: str, allowed: str) -> None:
    client = await admin(SettableEnvironment())
    async with client.delete(path, headers=ASKED) as response:
        assert (response.status, response.headers["Allow"]) == (405, allowed)
        assert (await response.json())["code"] == "method_not_allowed"


async def test_a_defect_of_an_endpoint_is_a_500(admin: Start) -> None:
    class Defective(SettableEnvironment):
        def not_ready_reason(self) -> str | None:
            raise ZeroDivisionError

    client = await admin(Defective())
    async with client.get("/readyz") as response:
        assert (response.status, (await response.json())["code"]) == (500, "internal_error")
