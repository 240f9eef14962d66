"""What a command does not import, because each import delays every start."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

_PROGRAM = """
import sys
from nanonets_proxy.process.lean_imports import lean_imports
with lean_imports():
    from nanonets_proxy.cli.commands import run
assert "rich" not in sys.modules
assert sys.modules["pydantic.plugin._loader"]._plugins is None, "every installed package was searched for plugins"
assert run({arguments}, lambda config: 0) == 0
print(*sys.modules)
"""
_OTHERS = {
    *("aiohttp", "prometheus_client", "sqlite3", "structlog", "uvloop"),
    *("nanonets_proxy.cli.check", "nanonets_proxy.cli.ledger", "nanonets_proxy.cli.admin_client"),
    *("nanonets_proxy.settings.merge", "nanonets_proxy.settings.reference"),
    *("nanonets_proxy.core.ratelimit.gate", "nanonets_proxy.process.settings_rereader"),
}
_UNUSED_BY_SERVER = {"decimal", "difflib", "fractions", "statistics"}
_UNUSED_BEFORE_COMMAND = {"asyncio", "dataclasses", "hashlib", "inspect", "json", "logging", "ssl", "subprocess"}
"""`hashlib` loads OpenSSL, and `dataclasses` the parser of Python code."""

_MOST_OWN = 145
"""The modules of the program that the reading of settings needs, and a few more."""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives each test an empty working directory: a settings file would be read."""
    monkeypatch.chdir(tmp_path)


def _imported(*arguments: str) -> set[str]:
    program = _PROGRAM.format(arguments=arguments)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    return set(done.stdout.splitlines()[-1].split())


def test_reading_the_settings_imports_neither_the_server_nor_the_code_of_other_commands() -> None:
    imported = _imported("serve", "--max-wait", "3s")
    assert imported & _OTHERS == set()
    assert len([name for name in imported if name.startswith("nanonets_proxy")]) <= _MOST_OWN


def test_no_command_imports_rich_although_it_is_installed() -> None:
    assert importlib.util.find_spec("rich") is not None
    assert [name for name in _imported("check", "--sandbox") if name.partition(".")[0] == "rich"] == []


def test_the_serving_process_imports_no_library_for_one_function_of_it() -> None:
    program = """
import sys
from nanonets_proxy.process.lean_imports import lean_imports
with lean_imports():
    import nanonets_proxy.process.serve
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    assert set(done.stdout.split()) & _UNUSED_BY_SERVER == set()


def test_the_command_of_run_waits_for_no_module_that_only_its_proxy_needs() -> None:
    program = """
import sys
from nanonets_proxy.cli.main import main
import nanonets_proxy.cli.run
from nanonets_proxy.process.run import quick, remembered
remembered._SECRETS = remembered.Path("secrets")
assert quick.is_surely_valid([], {"NANONETS_API_KEY": "a-key"})
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    assert set(done.stdout.split()) & _UNUSED_BEFORE_COMMAND == set()
