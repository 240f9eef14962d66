"""The compose example: a service without credentials, with the proxy as its sidecar."""

import base64
import contextlib
import json
import re
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from system.podman import ENVIRON_UNREADABLE, READ_ENVIRON, ROOT, TOOLS, Container, podman, run, succeed, wait_for

pytestmark = pytest.mark.system

EXAMPLE = ROOT / "deploy" / "compose"
PAGE = ROOT / "docs" / "deployment" / "compose.md"
CHECK = (TOOLS / "check-jsonschema", "--builtin-schema=vendor.compose-spec")
WHOLE_FILES = ("compose.yaml", "shared.yaml", "fleet.yaml")
API_KEY = "sys-a4d07c21e95b6f38"


@dataclass(frozen=True, slots=True)
class Project:
    """A set of compose files with a unique project name."""

    name: str
    files: tuple[Path, ...]

    def compose(self, *arguments: str) -> str:
        files = [f"--file={path}" for path in self.files]
        return succeed(TOOLS / "podman-compose", "--project-name", self.name, *files, *arguments)

    def container(self, service: str) -> Container:
        return Container(f"{self.name}_{service}_1")


def _project(*files: Path) -> Project:
    return Project(f"nanonets-proxy-test-{uuid.uuid4().hex[:8]}", (EXAMPLE / "compose.yaml", *files))


@contextlib.contextmanager
def _up(project: Project) -> Iterator[tuple[Container, Container]]:
    """Runs the service and the proxy during the block, and removes both."""
    try:
        project.compose("up", "--detach")
        yield project.container("app"), project.container("nanonets-proxy")
    finally:
        project.compose("down", "--timeout=5")
    assert podman("ps", "--all", "--quiet", f"--filter=name={project.name}") == ""


def _responses(app: Container) -> list[Any]:
    """Returns the responses that the sample service logged, without calls before the proxy was ready."""
    return [
        json.loads(line) for line in run("podman", "logs", app.name).stdout.splitlines() if line.startswith("{")
    ]


@pytest.mark.parametrize("name", WHOLE_FILES)
def test_a_compose_file_follows_the_specification(name: str) -> None:
    succeed(*CHECK, EXAMPLE / name)


def test_the_check_finds_a_bad_compose_file(tmp_path: Path) -> None:
    bad = tmp_path / "compose.yaml"
    bad.write_text((EXAMPLE / "compose.yaml").read_text().replace("read_only:", "readonly:"))
    done = run(*CHECK, bad)
    assert done.returncode == 1
    assert "readonly" in done.stdout


def test_the_example_with_the_sandbox_overlay_follows_the_specification(tmp_path: Path) -> None:
    merged = tmp_path / "compose.yaml"
    merged.write_text(_project(EXAMPLE / "compose.sandbox.yaml").compose("config"))
    succeed(*CHECK, merged)


@pytest.mark.parametrize("name", WHOLE_FILES)
def test_the_engine_waits_longer_than_the_proxy_drains(name: str) -> None:
    text = (EXAMPLE / name).read_text()
    delay_s, drain_s, grace_s = (
        int(re.findall(rf"^ +{name}: ([0-9]+)s\b", text, re.MULTILINE)[0])
        for name in ("NANONETS_PROXY_DRAIN_DELAY", "NANONETS_PROXY_DRAIN_TIMEOUT", "stop_grace_period")
    )
    assert grace_s >= delay_s + drain_s + 5


def test_the_app_depends_on_the_proxy_so_that_docker_compose_stops_it_first() -> None:
    text = _project().compose("config")
    app = text.partition("\n  app:\n")[2]
    assert re.match(r"(    .*\n)*?    depends_on:\n      nanonets-proxy:\n", app)


def test_the_key_file_of_the_example_cannot_be_committed() -> None:
    done = subprocess.run(
        ["git", "check-ignore", "--quiet", EXAMPLE / "secrets" / "nanonets_api_key"], cwd=ROOT, check=False
    )
    assert done.returncode == 0


@pytest.mark.usefixtures("image")
def test_with_the_sandbox_the_service_gets_responses_without_key_and_network() -> None:
    project = _project(EXAMPLE / "compose.sandbox.yaml")
    with _up(project) as (app, proxy):
        wait_for("two responses", lambda: len(_responses(app)) >= 2)
        assert {response["status"] for response in _responses(app)} == {200}
        wait_for("a passing health check", proxy.is_healthy)
        _assert_confined(proxy.inspect(), app.inspect())
        project.compose("stop")
        assert proxy.inspect()["State"]["ExitCode"] == 0
        # podman-compose stops all containers at the same time, so only the delay keeps this order.
        assert app.inspect()["State"]["FinishedAt"] < proxy.event("draining")["timestamp"]


def _assert_confined(proxy: Any, app: Any) -> None:
    host = proxy["HostConfig"]
    assert app["HostConfig"]["NetworkMode"] == f"container:{proxy['Id']}"
    assert host["ReadonlyRootfs"]
    assert "no-new-privileges" in str(host["SecurityOpt"])
    assert proxy["EffectiveCaps"] in (None, [])
    assert host["RestartPolicy"]["Name"] == "unless-stopped"


@pytest.mark.usefixtures("image")
def test_the_key_comes_from_the_secret_file_and_only_the_proxy_has_it(tmp_path: Path) -> None:
    key_file = tmp_path / "nanonets_api_key"
    key_file.write_text(f"{API_KEY}\n")
    key_file.chmod(0o444)
    overlay = tmp_path / "compose.upstream.yaml"
    overlay.write_text(_SIMULATED_UPSTREAM.format(key_file=key_file, api_key=API_KEY))
    with _up(_project(overlay)) as (app, proxy):
        # The three services start together, so the first calls can fail.
        wait_for("a response with 200", lambda: any(response["status"] == 200 for response in _responses(app)))
        assert proxy.event("started")["key"] == "file:/run/secrets/nanonets_api_key"
        assert proxy.python(READ_ENVIRON) == ENVIRON_UNREADABLE
        shown = [
            *(json.dumps(container.inspect()) for container in (app, proxy)),
            *(container.logs() for container in (app, proxy)),
            app.python(READ_ENVIRON),
        ]
        assert app.python("import os; print(os.path.exists('/run/secrets/nanonets_api_key'))") == "False\n"
    forms = (API_KEY, base64.b64encode(f"{API_KEY}:".encode()).decode().rstrip("="))
    assert not [form for form in forms for text in shown if form in text]


@pytest.mark.usefixtures("image")
@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        (None, "nanonets_api_key: no such file or directory"),
        ("", "nanonets-proxy: the API key of file:/run/secrets/nanonets_api_key is empty"),
    ],
)
def test_without_a_usable_key_the_example_ends_with_the_reason(
    key: str | None, sentence: str, tmp_path: Path
) -> None:
    key_file = tmp_path / "nanonets_api_key"
    if key is not None:
        key_file.write_text(key)
        key_file.chmod(0o444)
    overlay = tmp_path / "compose.key.yaml"
    overlay.write_text(_NO_NETWORK.format(key_file=key_file))
    project = _project(overlay)
    [up] = re.findall(r"`docker compose (up .*failure)`", PAGE.read_text())
    try:
        files = [f"--file={path}" for path in project.files]
        done = run(TOOLS / "podman-compose", "--project-name", project.name, *files, *up.split(), timeout_s=120)
    finally:
        project.compose("down", "--timeout=1")
    assert done.returncode not in (0, None)
    assert sentence in done.stdout + done.stderr


_NO_NETWORK = """
services:
  nanonets-proxy:
    network_mode: none
secrets:
  nanonets_api_key:
    file: {key_file}
"""

_SIMULATED_UPSTREAM = """
services:
  nanonets-proxy:
    network_mode: none
    environment:
      NANONETS_PROXY_UPSTREAM: http://127.0.0.1:8090
  upstream:
    image: nanonets-proxy
    network_mode: service:nanonets-proxy
    depends_on: [nanonets-proxy]
    command: ["sandbox", "--listen", "127.0.0.1:8090"]
    environment:
      NANONETS_SANDBOX_API_KEYS: {api_key}
secrets:
  nanonets_api_key:
    file: {key_file}
"""
