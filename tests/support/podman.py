"""Containers for the system tests, in the store that `tests/system/setup.sh` made."""

import contextlib
import functools
import http.client
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

ROOT: Final = Path(__file__).parents[2]
STATE: Final = ROOT / ".system"
TOOLS: Final = ROOT / ".venv-system" / "bin"
IMAGE: Final = "nanonets-proxy"
BASE: Final = "python:3.13-slim"

STRICT: Final = (
    "--read-only",
    "--tmpfs=/tmp",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
)
"""How a cluster with a strict policy would run the image."""

ON_HOST: Final = (
    "--network=host",
    "--env=NANONETS_PROXY_LISTEN=127.0.0.1:0",
    "--env=NANONETS_PROXY_ADMIN_LISTEN=127.0.0.1:0",
)
"""On the machine's own loopback, where the tests can call; ports are free ones, which the start event names."""

T = TypeVar("T")


@functools.cache
def environment() -> dict[str, str]:
    """What podman, buildah and podman-compose need to use the tests' own store, and none of our settings."""
    files = {"CONTAINERS_CONF": STATE / "containers.conf", "CONTAINERS_STORAGE_CONF": STATE / "storage.conf"}
    for path in files.values():
        assert path.exists(), f"{path} is missing: start the system tests by `make test-system`"
    inherited = {name: value for name, value in os.environ.items() if not name.upper().startswith("NANONETS")}
    return inherited | {name: str(path) for name, path in files.items()}


def run(*command: str | Path, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end, whatever its exit code."""
    return subprocess.run(
        [str(word) for word in command],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def succeed(*command: str | Path, timeout_s: float = 60.0) -> str:
    """Standard output of a command that must end with 0."""
    done = run(*command, timeout_s=timeout_s)
    assert done.returncode == 0, f"{command}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def podman(*arguments: str | Path, timeout_s: float = 60.0) -> str:
    return succeed("podman", *arguments, timeout_s=timeout_s)


def run_once(*arguments: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """The image's program with `arguments`, without a network, until it ends by itself."""
    # Without the health check podman adds no word of its own to standard error.
    return run("podman", "run", "--rm", "--network=none", "--no-healthcheck", *STRICT, *options, IMAGE, *arguments)


def wait_for(what: str, probe: Callable[[], T | None], *, within_s: float = 20.0) -> T:
    """The first result of `probe` that is neither None nor False."""
    ends_at = time.monotonic() + within_s
    while time.monotonic() < ends_at:
        if result := probe():
            return result
        time.sleep(0.1)
    raise AssertionError(f"not within {within_s:.0f} s: {what}")


@dataclass(frozen=True, slots=True)
class Container:
    """A container that was started."""

    name: str

    def inspect(self) -> Any:
        return json.loads(podman("inspect", self.name))[0]

    def logs(self) -> str:
        """Both of its streams."""
        done = run("podman", "logs", self.name)
        return done.stdout + done.stderr

    def event(self, name: str) -> Any:
        """The first log event of that name, waited for."""

        def find() -> Any:
            lines = run("podman", "logs", self.name).stdout.splitlines()
            return next((event for event in _events(lines) if event["event"] == name), None)

        return wait_for(f"the event {name} of {self.name}", find)

    def python(self, program: str) -> str:
        """What a Python program prints that runs in the container, as its user."""
        return podman("exec", self.name, "python", "-c", program)

    def is_healthy(self) -> bool:
        """Runs its health check now: what does so in turns elsewhere is systemd or the engine's daemon."""
        return run("podman", "healthcheck", "run", self.name).returncode == 0

    def signal(self, name: str) -> None:
        podman("kill", f"--signal={name}", self.name)

    def exit_code(self, *, within_s: float) -> int:
        """Its exit code, once it has ended."""
        return int(podman("wait", self.name, timeout_s=within_s))


def _events(lines: list[str]) -> Iterator[Any]:
    for line in lines:
        with contextlib.suppress(ValueError):
            yield json.loads(line)


@contextlib.contextmanager
def started(*arguments: str, options: tuple[str, ...]) -> Iterator[Container]:
    """The image's program with `arguments` in the background, in the strict mode; removed at the end."""
    container = Container(f"nanonets-proxy-test-{uuid.uuid4().hex[:8]}")
    try:
        podman("run", "--detach", "--name", container.name, *STRICT, *options, IMAGE, *arguments)
        yield container
    finally:
        run("podman", "rm", "--force", "--time=0", container.name)


def call(address: str, target: str, *, timeout_s: float = 30.0) -> tuple[int, str]:
    """Status and body of a GET without credentials."""
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=timeout_s)
    try:
        connection.request("GET", target)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


@contextlib.contextmanager
def sandbox(api_key: str, *flags: str) -> Iterator[str]:
    """The simulated API on the machine's loopback, wanting `api_key`; gives its origin."""
    program = [sys.executable, "-m", "nanonets_proxy", "sandbox", "--listen=127.0.0.1:0", *flags]
    process = subprocess.Popen(
        program,
        env=environment() | {"NANONETS_SANDBOX_API_KEYS": api_key},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            yield f"http://{json.loads(process.stdout.readline())['listen'][0]}"
        finally:
            process.terminate()


READ_ENVIRON = """
try:
    print(open("/proc/1/environ").read())
except PermissionError:
    print("closed to its own user")
"""
"""For `Container.python`: what the kernel shows of the first process's environment."""
