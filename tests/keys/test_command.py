"""Keys that a command prints."""

import math
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from nanonets_proxy.core.keys.api_key import KeyUnusable
from nanonets_proxy.keys import command as command_module
from nanonets_proxy.keys.command import CommandKey, environment_of_command
from support.eventually import WAIT_S


def command(body: str, *arguments: str, timeout_s: float = 20.0) -> CommandKey:
    return CommandKey((sys.executable, "-c", body, *arguments), refresh_s=60.0, timeout_s=timeout_s)


def fault_of(source: CommandKey) -> str:
    with pytest.raises(KeyUnusable) as caught:
        source.read()
    return str(caught.value)


def has_ended(pid: int) -> bool:
    """Returns whether the process has ended; a zombie counts as ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_the_output_of_the_command_is_the_key() -> None:
    (found,) = command("print('  a-key  ')").read()
    assert found.key.secrets()[-1] == b"a-key"
    assert found.key.name == f"command:{Path(sys.executable).name}"
    assert abs(found.created_at_s - time.time()) < 60


def test_the_output_is_read_although_callers_have_all_low_descriptors() -> None:
    files = [os.open(os.devnull, os.O_RDONLY)]
    try:
        while files[-1] < 1024:
            files.append(os.dup(files[0]))
        (found,) = command("print('a-key')").read()
        assert found.key.secrets()[-1] == b"a-key"
    finally:
        for file in files:
            os.close(file)


def test_the_command_gets_the_common_and_the_named_variables_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NANONETS_API_KEY_EU", "a-secret")  # of this process
    environ = {"PATH": "/bin", "LC_ALL": "C", "AWS_PROFILE": "p", "VAULT_TOKEN": "t", "NANONETS_API_KEY_EU": "k"}
    body = "import os; print(','.join(sorted(set(os.environ) - {'LC_CTYPE'})))"
    for patterns, names in (((), b"LC_ALL,PATH"), (("AWS_*",), b"AWS_PROFILE,LC_ALL,PATH")):
        variables = environment_of_command(patterns, environ)
        (found,) = CommandKey((sys.executable, "-c", body), 60.0, 20.0, variables).read()
        assert found.key.secrets()[-1] == names


def test_a_source_does_not_print_the_values_of_its_variables() -> None:
    assert "a-secret" not in repr(CommandKey(("true",), 60.0, 20.0, (("VAULT_TOKEN", "a-secret"),)))


def test_the_arguments_are_not_read_by_a_shell() -> None:
    (found,) = command("import sys; print(sys.argv[1])", "$HOME;`id`").read()
    assert found.key.secrets()[-1] == b"$HOME;`id`"


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("import sys; sys.exit(3)", "the command exited with code 3; run it by hand to see why"),
        ("import os; os.kill(os.getpid(), 9)", "the command was ended by signal 9; run it by hand to see why"),
        ("import sys; sys.stdout.write('k' * 10_000_000)", "the command printed more than 64 KiB"),
        ("print('a-key'); import sys; sys.exit(1)", "the command exited with code 1; run it by hand to see why"),
    ],
)
def test_a_command_that_fails_is_reported_in_one_sentence(body: str, fault: str) -> None:
    source = command(body)
    assert fault_of(source) == f"the API key of {source.name} is unavailable: {fault}"


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("pass", "is empty"),
        ("print('a:key')", "has a colon in it"),
        ("print('two\\nlines')", "has white space in it"),
        ("print('k\\u00e9y')", "has characters that are not ASCII"),
        ("import os; os.write(1, b'\\xff\\x00')", "has characters that are not ASCII"),
    ],
)
def test_output_that_is_not_a_key_is_reported_in_one_sentence(body: str, fault: str) -> None:
    source = command(body)
    assert fault_of(source) == f"the API key of {source.name} {fault}"


def test_a_missing_command_is_reported_in_one_sentence() -> None:
    source = CommandKey(("/nonexistent/helper", "--secret"), 60.0, 10.0)
    assert (
        fault_of(source)
        == "the API key of command:helper is unavailable: the command cannot be run: no such file or directory"
    )


class ClockThatWaits:
    """A clock that stands still until a file exists. Then all time has passed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._has_started = False

    def monotonic(self) -> float:
        if not self._has_started:
            self._has_started = True
            return 0.0
        deadline_s = time.monotonic() + WAIT_S
        while not self._path.exists():
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        return math.inf


@pytest.mark.parametrize("prints_first", ["", "a-key\\n"])
def test_a_command_that_hangs_is_killed_with_its_children(
    tmp_path: Path, prints_first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids = tmp_path / "pids"
    monkeypatch.setattr(command_module, "time", SimpleNamespace(monotonic=ClockThatWaits(pids).monotonic))
    body = (
        "import os, sys, subprocess, time\n"
        f"sys.stdout.write('{prints_first}'); sys.stdout.flush()\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "open(sys.argv[1] + '.new', 'w').write(f'{os.getpid()} {child.pid}')\n"
        "os.rename(sys.argv[1] + '.new', sys.argv[1])\n"
        "time.sleep(600)"
    )
    source = command(body, str(pids), timeout_s=3.0)
    assert fault_of(source).endswith("the command took longer than 3 s")
    for pid in map(int, pids.read_text().split()):
        deadline_s = time.monotonic() + WAIT_S
        while not has_ended(pid):
            assert time.monotonic() < deadline_s


def test_a_command_that_closes_its_output_and_keeps_running_is_killed_too() -> None:
    source = command("import os, time; print('a-key', flush=True); os.close(1); time.sleep(600)", timeout_s=2.0)
    assert fault_of(source).endswith("the command took longer than 2 s")


def test_standard_error_of_the_command_is_discarded(capfd: pytest.CaptureFixture[str]) -> None:
    command("import sys; print('a-key'); sys.stderr.write('+ echo a-key')").read()
    assert capfd.readouterr() == ("", "")


def test_a_reading_leaves_no_open_file_behind() -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - only the number counts
    for _ in range(3):
        command("print('a-key')").read()
        fault_of(command("import sys; sys.exit(1)"))
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - as above
