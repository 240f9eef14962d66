"""The plugin in a project of a user: its errors, its cost, and the end of its processes."""

import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support.commands.process import END_S, PLUGIN_ALONE, environment

Run = Callable[..., "subprocess.CompletedProcess[str]"]
OPTIONS = ("-p", "no:randomly", "-p", "no:cacheprovider", "--color=no")


@pytest.fixture
def run_tests(tmp_path: Path) -> Run:
    """Returns a function that runs pytest on a test file in an empty project. `is_alone`: with this plugin only."""

    def run_tests(
        text: str, *arguments: str, is_alone: bool = True, **env: str
    ) -> "subprocess.CompletedProcess[str]":
        (tmp_path / "test_of_a_user.py").write_text(text)
        return subprocess.run(
            [sys.executable, "-P", "-m", "pytest", *OPTIONS, *arguments],
            cwd=tmp_path,
            env=environment(**env, **(PLUGIN_ALONE if is_alone else {})),
            capture_output=True,
            text=True,
            timeout=5 * END_S,
            check=False,
        )

    return run_tests


MARKED = """
import pytest

@pytest.mark.nanonets({})
def test_it(nanonets_proxy):
    pass
"""


def test_a_wrong_argument_of_the_marker_is_an_error_that_names_it(run_tests: Run) -> None:
    wrong = {
        "limt='5/minute'": "has no argument 'limt'; did you mean 'limit'?",
        "colour='red'": "has no argument 'colour'; it has api_keys, etags, failure_rate, faults, hint",
        "'5/minute'": "takes keyword arguments only, such as limit='5/minute'; it got '5/minute'",
        "limit='many'": "limit: 'many' is not COUNT/WINDOW, such as 20/60s or 60/minute (flag --limit)",
        "faults=[200]": "faults: '200' is no fault: use a status from 400 to 599, disconnect or ok (flag --faults)",
        "latency='soon'": "latency: 'soon' is not a duration: write seconds, or 500ms, 30s, 5m, 1h (flag",
        "proxy='x'": "proxy: must be a dictionary of the proxy's settings by name, not 'x'",
        "proxy={1: 2}": "proxy: must be a dictionary of the proxy's settings by name, not {1: 2}",
        "proxy={'listen': 'unix:/tmp/x'}": "proxy: 'listen' belongs to the fixture",
        "proxy={'log_format': 'console'}": "proxy: 'log_format' belongs to the fixture",
        "proxy={'log_level': 'error'}": "proxy: 'log_level' belongs to the fixture",
        "proxy={'max_wat': 1}": "--max-wat: unknown flag; did you mean --max-wait?",
        "proxy={'max_wait': 'x'}": "max_wait: 'x' is not a duration",
    }
    tests = "\n".join(MARKED.format(text).replace("test_it", f"test_{at}") for at, text in enumerate(wrong))
    done = run_tests(tests)
    errors = re.findall(r"^@pytest\.mark\.nanonets (.*)$", done.stdout, re.MULTILINE)
    assert [sentence for sentence, shown in zip(wrong.values(), errors, strict=True) if sentence not in shown] == []
    assert "Traceback" not in done.stdout + done.stderr


def test_settings_of_the_user_have_no_effect(run_tests: Run, tmp_path: Path) -> None:
    (tmp_path / "nanonets-proxy.toml").write_text("nonsense")
    (tmp_path / "queue.py").write_text("raise SystemExit('a module of the user')")
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "nanonets_proxy_max_wait").write_text("nonsense")
    variables = {
        "NANONETS_API_KEY": "a-real-key",
        "NANONETS_PROXY_MAX_WAIT": "nonsense",
        "nanonets_proxy_pool_size": "nonsense",  # the names of settings are read in any case
        "CREDENTIALS_DIRECTORY": str(credentials),
    }
    done = run_tests(MARKED.format(""), **variables)
    assert done.returncode == 0, done.stdout


def test_secrets_of_a_container_engine_have_no_effect(run_tests: Run, tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "nanonets_proxy_max_wait").write_text("nonsense")
    # Only root may write to /run/secrets.
    (tmp_path / "sitecustomize.py").write_text(
        "import pathlib; from nanonets_proxy.keys import source; "
        f"source._engine_dirs[:] = [pathlib.Path({str(secrets)!r})]"
    )
    done = run_tests(MARKED.format(""), PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stdout


def test_a_project_that_uses_no_fixture_imports_only_the_plugins_module(run_tests: Run) -> None:
    done = run_tests(
        """
import sys

def test_it():
    assert [name for name in sys.modules if name.startswith("nanonets_proxy")] == [
        "nanonets_proxy", "nanonets_proxy.pytest_plugin", "nanonets_proxy.pytest_plugin.plugin"
    ]
""",
        "-p",
        "no:cov",
        is_alone=False,
    )
    assert done.returncode == 0, done.stdout


def test_a_process_of_xdist_has_its_own_servers(run_tests: Run) -> None:
    done = run_tests(
        """
import pytest

@pytest.mark.parametrize("_", range(4))
def test_it(_, nanonets_proxy, nanonets_sandbox):
    assert nanonets_sandbox.requests() == []
""",
        *("-p", "xdist.plugin", "-n2"),
    )
    assert done.returncode == 0, done.stdout
    assert "4 passed" in done.stdout


def test_no_process_outlives_a_session_that_is_killed(run_tests: Run) -> None:
    """Each process has standard error open, so its end of file proves that all have ended."""
    done = run_tests(
        "import os, signal\ndef test_it(nanonets_proxy): os.kill(os.getpid(), signal.SIGKILL)",
        "-s",
    )
    assert done.returncode == -signal.SIGKILL


def test_no_server_outlives_the_process_that_started_it(run_tests: Run) -> None:
    done = run_tests(
        """
import os, signal, socket, time

def test_it(nanonets_proxy, nanonets_sandbox, _nanonets_template):
    os.kill(_nanonets_template._process.pid, signal.SIGKILL)
    _nanonets_template._process.wait()
    for server in (nanonets_proxy, nanonets_sandbox):
        host, port = server.url.removeprefix("http://").split(":")
        while True:
            with socket.socket() as sock:
                if sock.connect_ex((host, int(port))):
                    break
"""
    )
    assert "1 passed" in done.stdout
    assert "the process of the Nanonets servers ended with code -9" in done.stdout
