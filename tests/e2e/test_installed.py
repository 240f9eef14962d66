"""The program as users start it. CI also runs this file with the installed wheel (NANONETS_PROXY_COMMAND)."""

import subprocess
from collections.abc import Callable
from typing import Any

import nanonets_proxy
from support.commands.process import ANY_PORTS, COMMAND, environment, proxy_to, running, sandbox

Call = Callable[..., tuple[int, dict[str, str], Any]]


def run(*arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*COMMAND, *arguments], env=environment(**env), capture_output=True, text=True, timeout=60, check=False
    )


def test_the_command_prints_the_packages_version() -> None:
    assert run("--version").stdout == f"nanonets-proxy {nanonets_proxy.__version__}\n"


def test_the_default_command_serves_and_adds_the_key(call: Call) -> None:
    with (
        sandbox() as upstream,
        running([*ANY_PORTS, "--upstream", upstream], environment(NANONETS_API_KEY="sandbox-test-key")) as proxy,
    ):
        status, headers, body = call(f"{proxy.url}/api/v4/workflows")
        assert (status, body) == (200, {"workflows": []})
        assert headers["server-timing"].startswith("queue;dur=")


def test_the_embedded_sandbox_needs_no_key_and_announces_itself(call: Call) -> None:
    with running(["serve", "--sandbox", *ANY_PORTS], environment()) as proxy:
        status, _, body = call(f"{proxy.url}/api/v4/workflows")
        assert (status, body) == (200, {"workflows": []})
        page = call(f"{proxy.url}/", Host="localhost:9000")[2].decode()
        assert "\ncurl http://localhost:9000/api/v4/workflows/WORKFLOW_ID/documents -F file=@invoice.pdf" in page
        assert "$KEY" not in page
        assert proxy.end() == 0
    assert b"SANDBOX" in proxy.stderr
    assert f"curl {proxy.url}/api/v4/workflows".encode() in proxy.stderr


def test_check_passes_with_a_valid_key() -> None:
    with sandbox() as upstream:
        good = run("check", "--upstream", upstream, NANONETS_API_KEY="sandbox-test-key")
        bad = run("check", "--upstream", upstream, NANONETS_API_KEY="another-key")
    assert good.returncode == 0
    assert [line.split()[0] for line in good.stdout.splitlines()] == ["ok"] * 4
    assert bad.returncode == 1
    assert bad.stdout.splitlines()[-1].startswith("fail  key accepted")
    assert "another-key" not in bad.stdout + bad.stderr


def test_the_admin_listener_serves_health_and_metrics(call: Call) -> None:
    with sandbox() as upstream, proxy_to(upstream, is_forked=False) as proxy:
        call(f"{proxy.url}/api/v4/workflows")
        status, _, ready = call(f"{proxy.admin_url}/readyz")
        assert (status, ready["status"]) == (200, "ready")
        assert call(f"{proxy.admin_url}/livez")[::2] == (200, {"status": "alive"})
        metrics = call(f"{proxy.admin_url}/metrics")[2].decode()
        labels = 'caller="127.0.0.1",method="GET",route="/api/v4/workflows",status="2xx"'
        assert f"nanonets_proxy_requests_total{{{labels}}} 1.0" in metrics
        assert call(f"{proxy.admin_url}/readyz", Host="rebound.example")[0] == 403
        address = proxy.admin_url.removeprefix("http://")
        assert run("healthcheck", "--admin-listen", address).returncode == 0
    assert run("healthcheck", "--admin-listen", address).returncode == 1
