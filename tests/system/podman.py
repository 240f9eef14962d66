"""Containers for the system tests, in the store that `tests/system/setup.sh` creates."""

import contextlib
import functools
import hashlib
import http.client
import json
import os
import ssl
import stat
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
COMMANDS: Final = ROOT / "tests" / "system" / "machine" / "bin"
IMAGE: Final = "nanonets-proxy-tested"
EXAMPLES_IMAGE: Final = "nanonets-proxy"
"""The same image by the name that examples and pages use. Commands of the pages may build it again."""
BASE: Final = "python:3.13-slim"

STRICT: Final = (
    "--read-only",
    "--tmpfs=/tmp",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
)
"""The options of a cluster with a strict policy."""

ON_HOST: Final = (
    "--network=host",
    "--env=NANONETS_PROXY_LISTEN=127.0.0.1:0",
    "--env=NANONETS_PROXY_ADMIN_LISTEN=127.0.0.1:0",
)
"""Options for the machine's own loopback, which the tests can call. The start event has the ports."""

COMMAND_S: Final = 120.0
"""Within this time a command ends. Only a failure takes as long."""

_BUILD_TIMEOUT_S: Final = 600.0

T = TypeVar("T")


@functools.cache
def environment() -> dict[str, str]:
    """Returns podman's environment: the tests' own store, without the proxy's variables."""
    files = {"CONTAINERS_CONF": STATE / "containers.conf", "CONTAINERS_STORAGE_CONF": STATE / "storage.conf"}
    for path in files.values():
        assert path.exists(), f"{path} is missing: run the system tests with `make test-system`"
    inherited = {name: value for name, value in os.environ.items() if not name.upper().startswith("NANONETS")}
    commands = {"PATH": f"{COMMANDS}:{os.environ['PATH']}"}
    return inherited | commands | {name: str(path) for name, path in files.items()}


def run(*command: str | Path, timeout_s: float = COMMAND_S) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end, with any exit code."""
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


def succeed(*command: str | Path, timeout_s: float = COMMAND_S) -> str:
    """Returns the standard output of a command that must exit with 0."""
    done = run(*command, timeout_s=timeout_s)
    assert done.returncode == 0, f"{command}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def podman(*arguments: str | Path, timeout_s: float = COMMAND_S) -> str:
    return succeed("podman", *arguments, timeout_s=timeout_s)


def build(*options: str, is_cached: bool = False) -> None:
    """Builds the Dockerfile's image.

    Without cached layers, all locked packages must still be available.
    """
    podman(
        "build",
        "--format=docker",  # the OCI format does not support HEALTHCHECK
        "--layers",
        f"--no-cache={not is_cached}".lower(),
        "--network=host",
        *(f"--secret=id=ca,src={path}" for path in certificates()),
        *options,
        ".",
        timeout_s=_BUILD_TIMEOUT_S,
    )


def files_of(image: str) -> dict[str, tuple[int, int, int, str]]:
    """Returns mode, user, group and content (a hash, or a link's target) of each file of an image, by path."""
    root = Path(podman("image", "mount", image).strip())
    try:
        return {str(path.relative_to(root)): _fingerprint(path) for path in root.rglob("*")}
    finally:
        podman("image", "unmount", image)


def _fingerprint(path: Path) -> tuple[int, int, int, str]:
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        content = str(path.readlink())
    else:
        content = hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(status.st_mode) else ""
    return status.st_mode, status.st_uid, status.st_gid, content


def certificates() -> list[str]:
    """Returns the CA file that pip trusts on this machine, if any; the network may need it."""
    files = (os.environ.get("PIP_CERT"), os.environ.get("SSL_CERT_FILE"), ssl.get_default_verify_paths().cafile)
    return [path for path in files if path and Path(path).is_file()][:1]


def run_once(*arguments: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Runs the image with `arguments`, without a network, until it exits."""
    # With a health check, podman would write its own lines to standard error.
    return run("podman", "run", "--rm", "--network=none", "--no-healthcheck", *STRICT, *options, IMAGE, *arguments)


def wait_for(what: str, probe: Callable[[], T | None], *, within_s: float = 60.0) -> T:
    """Waits for a result of `probe` other than None and False, and returns it."""
    ends_at = time.monotonic() + within_s
    while time.monotonic() < ends_at:
        if result := probe():
            return result
        time.sleep(0.1)
    raise AssertionError(f"not within {within_s:.0f} s: {what}")


@dataclass(frozen=True, slots=True)
class Container:
    """A started container."""

    name: str

    def inspect(self) -> Any:
        return json.loads(podman("inspect", self.name))[0]

    def logs(self) -> str:
        """Returns standard output and standard error."""
        done = run("podman", "logs", self.name)
        return done.stdout + done.stderr

    def event(self, name: str) -> Any:
        """Waits for the first log event called `name`."""

        def find() -> Any:
            lines = run("podman", "logs", self.name).stdout.splitlines()
            return next((event for event in _events(lines) if event["event"] == name), None)

        return wait_for(f"the event {name} of {self.name}", find)

    def python(self, program: str) -> str:
        """Runs a Python program in the container as its user, and returns its output."""
        return podman("exec", self.name, "python", "-c", program)

    def is_healthy(self) -> bool:
        """Runs the health check once. (Elsewhere, systemd or the engine's daemon runs it periodically.)"""
        return run("podman", "healthcheck", "run", self.name).returncode == 0

    def signal(self, name: str) -> None:
        podman("kill", f"--signal={name}", self.name)

    def exit_code(self) -> int:
        """Waits for the container's end, and returns its exit code."""
        return int(podman("wait", self.name))


def _events(lines: list[str]) -> Iterator[Any]:
    for line in lines:
        with contextlib.suppress(ValueError):
            yield json.loads(line)


@contextlib.contextmanager
def started(*arguments: str, options: tuple[str, ...]) -> Iterator[Container]:
    """Runs the image with `arguments` in the background, with the strict options, and removes the container."""
    container = Container(f"nanonets-proxy-test-{uuid.uuid4().hex[:8]}")
    try:
        podman("run", "--detach", "--name", container.name, *STRICT, *options, IMAGE, *arguments)
        yield container
    finally:
        run("podman", "rm", "--force", "--time=0", container.name)


def call(address: str, target: str, *, timeout_s: float = 30.0) -> tuple[int, str]:
    """Sends a GET without credentials, and returns status and body."""
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
    """Runs the sandbox on the machine's loopback with the key `api_key`, and yields its origin."""
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


READ_ENVIRON: Final = """
try:
    print(open("/proc/1/environ").read())
except PermissionError:
    print("unreadable")
"""
"""A program for `Container.python`: prints the environment of the container's first process."""

ENVIRON_UNREADABLE: Final = "unreadable\n"
"""The output of READ_ENVIRON if the process has closed its environment to its own user."""
