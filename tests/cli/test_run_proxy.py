"""The proxy of `run`: whether it is certain to start, and that its command waits for no more."""

import subprocess
import sys
from pathlib import Path

import pytest

from nanonets_proxy.cli.run_proxy import is_certain_to_start
from nanonets_proxy.settings import load_settings
from support.eventually import WAIT_S

KEY = {"NANONETS_API_KEY": "a-key"}


def _is_certain(environ: dict[str, str], **flags: str) -> bool:
    return is_certain_to_start(load_settings(flags, {}, dirs=[], default_config=Path("none")), "", environ)


def test_a_proxy_with_a_key_and_a_ledger_is_certain_to_start(tmp_path: Path) -> None:
    assert _is_certain(KEY, ledger=str(tmp_path / "usage.db"))


def test_a_proxy_with_a_ledger_is_not_certain_to_start_without_sqlite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "_sqlite3", None)
    assert _is_certain(KEY)
    assert not _is_certain(KEY, ledger=str(tmp_path / "usage.db"))


@pytest.mark.parametrize("environ", [{}, {"NANONETS_API_KEY": "a:b"}, {**KEY, "AIOHTTP_NO_EXTENSIONS": "1"}])
def test_a_proxy_is_not_certain_to_start_without_a_key_or_a_strict_parser(environ: dict[str, str]) -> None:
    assert not _is_certain(environ)


def test_a_sandbox_needs_no_key_and_a_store_of_keys_is_never_certain() -> None:
    assert _is_certain({}, sandbox="true")
    assert not _is_certain(KEY, api_key_command="true")


def test_a_key_that_the_upstream_of_its_environment_cannot_take_is_not_certain(tmp_path: Path) -> None:
    (file := tmp_path / "settings.toml").write_text(
        "[environments.a]\n[environments.b]\nlisten = 'localhost:1'\nauth = 'bearer'\nupstream = 'http://[::1]:1'\n"
    )
    loaded = load_settings({}, {}, dirs=[], default_config=file)
    keys = {"NANONETS_API_KEY_A": "a!key", "NANONETS_API_KEY_B": "a!key"}
    assert is_certain_to_start(loaded, "a", keys)
    assert not is_certain_to_start(loaded, "b", keys)


def test_the_command_waits_for_no_module_that_only_the_configuration_of_its_proxy_needs(tmp_path: Path) -> None:
    program = """
import sys
import nanonets_proxy.cli.serving, nanonets_proxy.server.inherited
from nanonets_proxy.process.lean_imports import lean_imports
with lean_imports():
    from nanonets_proxy.cli.commands import run

def on_certain():
    print(*sys.modules)

assert run(["run", "--max-wait", "3s"], lambda config: 0, on_certain) == 0
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True, cwd=tmp_path, env=KEY
    )
    imported = set(done.stdout.split())
    assert "nanonets_proxy.settings.validation" in imported
    assert imported & {"nanonets_proxy.app", "nanonets_proxy.upstream", "nanonets_proxy.telemetry"} == set()


def test_a_proxy_that_could_start_no_process_for_its_settings_ends_with_the_command(tmp_path: Path) -> None:
    program = """
import os
fork, forks = os.fork, iter((0, 1))  # the two forks that detach the proxy

def fork_twice():
    if next(forks, None) is None:
        raise OSError("no further process")
    return fork()

os.fork = fork_twice
from nanonets_proxy.cli.main import main
raise SystemExit(main())
"""
    command = [sys.executable, "-c", program, "run", "--max-wait", "3s", "--", "echo", "done"]
    # It reads the log to its end, which is the end of the proxy.
    done = subprocess.run(
        command, capture_output=True, check=True, text=True, cwd=tmp_path, env=KEY, timeout=WAIT_S
    )
    assert done.stdout == "done\n"
    assert done.stderr == ""
