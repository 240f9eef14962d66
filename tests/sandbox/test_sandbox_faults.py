"""Simulated faults, and the requests that a sandbox remembers."""

import time

import aiohttp
import pytest

from nanonets_proxy.sandbox import state
from nanonets_proxy.sandbox.policy import SandboxPolicy


async def test_the_first_requests_meet_the_faults_in_order(sandbox) -> None:
    client = await sandbox(faults=("503", "ok", "429", "401", "418", "599"))
    statuses, codes = [], []
    for _ in range(7):
        response = await client.get("/api/v4/workflows")
        statuses.append(response.status)
        codes.append((await response.json()).get("code"))
    assert statuses == [503, 200, 429, 401, 418, 599, 200]
    assert codes == [
        "service_unavailable",
        None,
        "rate_limit_exceeded",
        "unauthorized",
        "i_m_a_teapot",
        "simulated_fault",
        None,
    ]


async def test_a_disconnect_ends_the_connection_without_a_response(sandbox) -> None:
    client = await sandbox(faults=("disconnect",))
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await client.post("/api/v4/workflows", json={"description": "x"})
    assert (await client.get("/api/v4/workflows")).status == 200
    seen = (await (await client.get("/sandbox/requests")).json())["requests"]
    assert [(request["method"], request["status"]) for request in seen] == [("POST", 0), ("GET", 200)]


async def test_a_reset_begins_the_faults_anew_and_forgets_the_requests(sandbox) -> None:
    client = await sandbox(faults=("500",))
    assert [(await client.get("/api/v4/workflows")).status for _ in range(2)] == [500, 200]
    await client.post("/sandbox/reset")
    assert (await (await client.get("/sandbox/requests")).json()) == {"requests": []}
    assert (await client.get("/api/v4/workflows")).status == 500


async def test_it_tells_each_api_request_with_method_target_status_and_time(sandbox) -> None:
    before = time.time()
    client = await sandbox(limit=None)
    await client.get("/api/v4/workflows?page=1")
    await client.get("/api/v4/nothing")
    await client.get("/api/v4/workflows", headers={"Authorization": "Basic eDo="})
    await client.get("/sandbox/stats")
    seen = (await (await client.get("/sandbox/requests")).json())["requests"]
    assert [(request["method"], request["path"], request["status"]) for request in seen] == [
        ("GET", "/api/v4/workflows?page=1", 200),
        ("GET", "/api/v4/nothing", 404),
        ("GET", "/api/v4/workflows", 401),
    ]
    assert before <= seen[0]["time"] <= seen[2]["time"] <= time.time()


async def test_it_remembers_a_bounded_number_of_requests(sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "MAX_REQUESTS", 2)
    client = await sandbox()
    for page in range(3):
        await client.get(f"/api/v4/workflows?page={page}")
    seen = (await (await client.get("/sandbox/requests")).json())["requests"]
    assert [request["path"][-1] for request in seen] == ["1", "2"]


@pytest.mark.parametrize("fault", ["200", "600", "", "timeout", "50"])
def test_an_unknown_fault_is_an_error_that_names_it(fault: str) -> None:
    with pytest.raises(ValueError, match=f"'{fault}' is no fault"):
        SandboxPolicy(api_keys=("k",), faults=("503", fault))
