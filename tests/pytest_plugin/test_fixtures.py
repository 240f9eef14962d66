"""The fixtures for users' tests, used as a user does."""

import base64
import http.client
import json
import time
from typing import Any

import pytest

from nanonets_proxy.pytest_plugin import marker
from nanonets_proxy.pytest_plugin.servers import NanonetsProxy, NanonetsSandbox
from nanonets_proxy.settings import SandboxSettings


def call(server: NanonetsProxy | NanonetsSandbox, path: str, key: str | None = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)
    fields = {} if key is None else {"Authorization": "Basic " + base64.b64encode(f"{key}:".encode()).decode()}
    try:
        connection.request("GET", path, headers=fields)
        response = connection.getresponse()
        return response.status, json.load(response)
    finally:
        connection.close()


def test_the_sandbox_has_a_key_and_no_limit(nanonets_sandbox: NanonetsSandbox) -> None:
    assert call(nanonets_sandbox, "/api/v4/workflows")[0] == 401
    assert {call(nanonets_sandbox, "/api/v4/workflows", nanonets_sandbox.api_key)[0] for _ in range(70)} == {200}


def test_it_tells_which_requests_arrived(nanonets_sandbox: NanonetsSandbox) -> None:
    before = time.time()
    call(nanonets_sandbox, "/api/v4/workflows?page=1", nanonets_sandbox.api_key)
    (request,) = nanonets_sandbox.requests()
    assert request[:3] == ("GET", "/api/v4/workflows?page=1", 200)
    assert before <= request.time <= time.time()


@pytest.mark.parametrize("_", [1, 2])
@pytest.mark.nanonets(limit="1/hour")
def test_each_test_has_a_sandbox_and_a_limit_of_its_own(_: int, nanonets_sandbox: NanonetsSandbox) -> None:
    assert [call(nanonets_sandbox, "/api/v4/workflows", nanonets_sandbox.api_key)[0] for _ in range(2)] == [
        200,
        429,
    ]


@pytest.mark.parametrize("_", [1, 2])
@pytest.mark.nanonets(proxy={"jobs": "jobs", "state_file": "state"})
def test_relative_paths_among_the_settings_are_those_of_one_test(_: int, nanonets_proxy: NanonetsProxy) -> None:
    assert call(nanonets_proxy, "/api/v4/workflows")[0] == 200


@pytest.mark.nanonets(faults=[503, "disconnect", "ok", 500])
def test_the_proxy_needs_no_key_and_hides_faults(nanonets_proxy: NanonetsProxy) -> None:
    assert call(nanonets_proxy, "/api/v4/workflows")[0] == 200
    assert [request.status for request in nanonets_proxy.requests()] == [503, 0, 200]
    assert call(nanonets_proxy, "/api/v4/workflows", "any-key")[0] == 500


@pytest.mark.nanonets(limit="2/500ms", proxy={"max_wait": "5s"})
def test_the_proxy_waits_for_the_limit(nanonets_proxy: NanonetsProxy) -> None:
    assert [call(nanonets_proxy, "/api/v4/workflows")[0] for _ in range(6)] == [200] * 6


@pytest.mark.nanonets(api_keys=["one", "two"], latency=0.05)
class TestClosestMarker:
    @pytest.mark.nanonets(api_keys="three")
    def test_wins(self, nanonets_proxy: NanonetsProxy, nanonets_sandbox: NanonetsSandbox) -> None:
        assert nanonets_sandbox.api_key == "three"
        assert nanonets_proxy.sandbox is nanonets_sandbox
        before = time.monotonic()
        assert call(nanonets_proxy, "/api/v4/workflows")[0] == 200
        assert time.monotonic() - before >= 0.05


@pytest.mark.nanonets(etags=True, proxy={"revalidate": "/api/v4/workflows", "server_timing": False})
def test_switches_are_python_booleans(nanonets_proxy: NanonetsProxy) -> None:
    assert [call(nanonets_proxy, "/api/v4/workflows")[0] for _ in range(2)] == [200, 200]
    assert [request.status for request in nanonets_proxy.requests()] == [200, 304]


def test_the_marker_takes_every_setting_of_the_sandbox() -> None:
    assert {*marker._SANDBOX} == SandboxSettings.model_fields.keys() - {"listen"}  # the fixture finds it
