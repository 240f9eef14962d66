"""Boots the units of deploy/systemd in a Debian of their own, and operates the service under load."""

import http.client
import json
import shutil
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from nanonets_proxy import __version__
from support.commands.ports import free_port
from system.machine.booted import booted, make_root
from system.podman import run, sandbox, succeed, wait_for

pytestmark = pytest.mark.system

UNITS: Final = ("nanonets-proxy.service", "nanonets-proxy.socket")
SERVICE: Final = "nanonets-proxy"
API_KEY: Final = "sys-systemd-5b1c7d20"
NEXT_API_KEY: Final = "sys-systemd-90e4fa63"
PATH: Final = "/api/v4/workflows"
NEXT_VERSION: Final = f"{__version__}.post1"
CALLERS: Final = 4


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Makes a Debian root with the program and the units."""
    return make_root(tmp_path_factory.mktemp("systemd"), with_service=True)


def test_the_units_are_valid_and_well_confined(root: Path) -> None:
    units = [f"/etc/systemd/system/{unit}" for unit in UNITS]
    succeed("chroot", root, "systemd-analyze", "verify", "--recursive-errors=yes", *units)
    succeed("chroot", root, "systemd-analyze", "security", "--offline=yes", "--threshold=20", units[0])


def test_the_checks_find_a_bad_unit(root: Path) -> None:
    bad = root / "etc" / "systemd" / "system" / "bad.service"
    bad.write_text("[Service]\nExecStart=/opt/nanonets-proxy/bin/nanonets-proxy\nNoSuchKey=yes\n")
    try:
        path = "/etc/systemd/system/bad.service"
        assert run("chroot", root, "systemd-analyze", "verify", "--recursive-errors=yes", path).returncode
        assert run(
            "chroot", root, "systemd-analyze", "security", "--offline=yes", "--threshold=20", path
        ).returncode
    finally:
        bad.unlink()


class Callers:
    """Call all the time, and count the responses and the failures."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._is_done = False
        self.results: Counter[int | str] = Counter()
        self.lost: list[str] = []
        """When each failed call began and failed, for the message of a failed test."""
        self._threads = [threading.Thread(target=self._call) for _ in range(CALLERS)]
        for thread in self._threads:
            thread.start()

    def _call(self) -> None:
        while not self._is_done:
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
            began_s = sent_s = time.monotonic()
            try:
                connection.connect()
                connection.request("GET", PATH)
                sent_s = time.monotonic()
                response = connection.getresponse()
                response.read()
                self.results[response.status] += 1
            except (OSError, http.client.HTTPException) as error:
                self.results[type(error).__name__] += 1
                self.lost.append(
                    f"{error!r}: began {began_s:.3f}, sent {sent_s:.3f}, failed {time.monotonic():.3f}"
                )
            finally:
                connection.close()
            time.sleep(0.01)

    def stop(self) -> "Counter[int | str]":
        self._is_done = True
        for thread in self._threads:
            thread.join()
        return self.results


class Machine:
    """The booted machine."""

    def __init__(self, inside: tuple[str, ...], port: int) -> None:
        self._inside = inside
        self.port = port

    def succeed(self, *command: str, timeout_s: float = 120.0) -> str:
        return succeed(*self._inside, *command, timeout_s=timeout_s)

    def systemctl(self, *arguments: str) -> str:
        return self.succeed("systemctl", *arguments)

    def main_pid(self) -> str:
        return self.systemctl("show", "--property=MainPID", "--value", SERVICE).strip()

    def versions(self) -> list[str]:
        """Returns the version of each process that began to serve."""
        lines = self.succeed("journalctl", f"--unit={SERVICE}", "--output=cat").splitlines()
        events = [json.loads(line) for line in lines if line.startswith("{")]
        return [event["version"] for event in events if event["event"] == "started"]


@pytest.fixture
def machine(root: Path) -> Iterator[Machine]:
    """Boots the root; the service starts with it, in front of a simulated API that takes two keys."""
    port = free_port()
    with sandbox(f"{API_KEY},{NEXT_API_KEY}", "--limit=none", "--latency=200ms") as upstream:
        drop_in = root / "etc" / "systemd" / "system" / f"{SERVICE}.service.d"
        drop_in.mkdir(exist_ok=True)
        (drop_in / "test.conf").write_text(
            f"[Service]\nEnvironment=NANONETS_PROXY_LISTEN=127.0.0.1:{port} NANONETS_PROXY_UPSTREAM={upstream} "
            "NANONETS_PROXY_ADMIN_LISTEN=127.0.0.1:0 "
            "NANONETS_PROXY_LEDGER=%S/nanonets-proxy/usage.db NANONETS_PROXY_JOBS=%S/nanonets-proxy/jobs\n"
        )
        (root / "etc" / SERVICE / "nanonets_api_key").write_text(API_KEY)
        try:
            with booted(root) as inside:
                wait_for("the service", lambda: _responds(port), within_s=120)
                yield Machine(inside, port)
        finally:
            shutil.rmtree(drop_in)


def _responds(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def test_the_service_is_reloaded_rotated_upgraded_and_killed_under_load(machine: Machine, root: Path) -> None:
    state = root / "var" / "lib" / "private" / SERVICE
    callers = Callers(machine.port)
    try:
        wait_for("responses", lambda: callers.results[200] > 20)
        first = machine.main_pid()
        machine.systemctl("reload", SERVICE)
        (root / "etc" / SERVICE / "nanonets_api_key").write_text(NEXT_API_KEY)
        machine.systemctl("restart", SERVICE)
        second = machine.main_pid()
        _wait_for_more(callers)
        assert set(callers.results) == {200}, callers.lost
        kept = {path.name for path in state.iterdir()}
        assert kept >= {"state", "usage.db", "jobs"}, "limits, usage and jobs outlive the process"
        version = _install_next_release(root)
        machine.systemctl("kill", "--kill-whom=main", "--signal=USR2", SERVICE)
        wait_for("another main process", lambda: machine.main_pid() not in (second, "0"), within_s=60)
        assert len({first, second, machine.main_pid()}) == 3
        wait_for("the new release", lambda: machine.versions()[-1:] == [version], within_s=60)
        _wait_for_more(callers)
        machine.systemctl("restart", SERVICE)
        _wait_for_more(callers)
        assert set(callers.results) == {200}, callers.lost
        machine.systemctl("kill", "--kill-whom=main", "--signal=KILL", SERVICE)
        _wait_for_more(callers)
    finally:
        results = callers.stop()
    assert _lost(results) <= CALLERS, "only calls in flight are lost"
    assert "ConnectionRefusedError" not in results


def _install_next_release(root: Path) -> str:
    """Installs the program with a higher version over the running one, and returns the version."""
    module = root / "srv" / "source" / "proxy" / "nanonets_proxy" / "__init__.py"
    text = module.read_text()
    module.write_text(text.replace(f'"{__version__}"', f'"{NEXT_VERSION}"'))
    pip = ["/opt/nanonets-proxy/bin/pip", "--quiet", "--disable-pip-version-check", "install"]
    succeed("chroot", root, *pip, "--no-deps", "--no-build-isolation", "/srv/source", timeout_s=300)
    return NEXT_VERSION


def _wait_for_more(callers: Callers) -> None:
    served = callers.results[200]
    wait_for("further responses", lambda: callers.results[200] > served + 20, within_s=60)


def _lost(results: "Counter[int | str]") -> int:
    return sum(count for result, count in results.items() if result != 200)
