"""The admin application by itself, with environments that the tests control."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp.test_utils import TestClient
from prometheus_client import CollectorRegistry, Counter
from pytest_aiohttp import AiohttpClient

from nanonets_proxy.admin.server import create_admin_app
from nanonets_proxy.core.access.peer_guard import PeerGuard, PeerGuardPolicy
from nanonets_proxy.telemetry.alerts import Alerts
from nanonets_proxy.telemetry.key_status import KeyEntry, KeyStatus

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
    alerts: Alerts = field(default_factory=lambda: Alerts(CollectorRegistry()))

    def not_ready_reason(self) -> str | None:
        return self.not_ready

    def key_status(self) -> KeyStatus:
        return KeyStatus("env", "serving", (KeyEntry("a", "f", "active", 5.2),), (), None, candidate_rejected=False)

    async def reload(self) -> str | None:
        self.reloads += 1
        return self.not_reloaded


Start = Callable[..., Awaitable[TestClient[Any, Any]]]


@pytest.fixture
def admin(aiohttp_client: AiohttpClient) -> Start:
    """`await admin(*environments)` starts the application and returns a client."""

    def start(*environments: SettableEnvironment) -> Awaitable[TestClient[Any, Any]]:
        registry = CollectorRegistry()
        Counter("of_the_test", "A counter.", registry=registry).inc()
        return aiohttp_client(create_admin_app(PeerGuard(PeerGuardPolicy()), registry, environments))

    return start


@pytest.mark.parametrize(
    ("method", "path", "fields", "status"),
    [
        ("GET", "/livez", {}, 200),
        ("HEAD", "/readyz", {}, 200),
        ("GET", "/metrics", {}, 200),
        ("GET", "/elsewhere", {}, 404),
        ("POST", "/livez", {}, 405),
        ("TRACE", "/livez", {}, 405),
        ("GET", "/livez", {"Origin": "https://evil.example"}, 403),
        ("GET", "/livez", {"Sec-Fetch-Site": "cross-site"}, 403),
        ("GET", "/metrics", {"Host": "evil.example"}, 403),
        ("POST", "/reload", {"Origin": "https://evil.example"}, 403),
    ],
)
async def test_the_admin_application_responds_behind_the_guard(
    admin: Start, method: str, path: str, fields: dict[str, str], status: int
) -> None:
    environment = SettableEnvironment()
    client = await admin(environment)
    async with client.request(method, path, headers=fields) as response:
        assert response.status == status
        assert response.headers.getall("Server") == ["nanonets-proxy"]
    assert environment.reloads == 0


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
    ("method", "path", "status", "good", "bad"),
    [("GET", "/readyz", 200, "ready", "not ready"), ("POST", "/reload", 200, "reloaded", "not reloaded")],
)
async def test_a_status_has_the_reason_and_the_keys(
    admin: Start, method: str, path: str, status: int, good: str, bad: str
) -> None:
    environment = SettableEnvironment()
    client = await admin(environment)
    async with client.request(method, path) as response:
        assert (response.status, await response.json()) == (status, {"status": good, "key": KEY})
    environment.not_ready = environment.not_reloaded = "draining"
    async with client.request(method, path) as response:
        assert response.status == 503
        assert await response.json() == {"status": bad, "reason": "draining", "key": KEY}


async def test_readyz_shows_the_alerts_of_an_environment(admin: Start) -> None:
    environment = SettableEnvironment()
    client = await admin(environment)
    environment.alerts.report("disk_filled", "make room", free_bytes=0)
    async with client.get("/readyz") as response:
        assert response.status == 200
        (alert,) = (await response.json())["alerts"]
    assert (alert["event"], alert["advice"], alert["free_bytes"]) == ("disk_filled", "make room", 0)


async def test_a_reload_says_that_the_settings_were_not_read(aiohttp_client: AiohttpClient) -> None:
    environments, registry = [SettableEnvironment()], CollectorRegistry()
    app = create_admin_app(
        PeerGuard(PeerGuardPolicy()), registry, environments, lambda: "settings.toml has changed"
    )
    client = await aiohttp_client(app)
    async with client.post("/reload") as response:
        assert (await response.json())["warning"] == "settings.toml has changed"
    async with client.get("/readyz") as response:
        assert "warning" not in await response.json()


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
    async with client.post("/reload") as response:
        assert response.status == 503
    assert [environment.reloads for environment in environments] == [1, 1]
