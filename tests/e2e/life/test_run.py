"""`nanonets-proxy run -- CMD`: the command's life, and the life of the proxy beside it."""

import json
import os
import pty
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from nanonets_proxy.core.access.token_text import make_token
from support.commands.forked_command import ForkedCommand
from support.commands.process import COMMAND, END_S, completed, environment, finished, sandbox
from support.eventually import until

KEY = "sandbox-test-key"
# Reports what a command sees, as a JSON document. Its argument is the key, backwards.
PROBE = """
import base64, json, os, pathlib, sys, urllib.error, urllib.request

def status(**fields):
    request = urllib.request.Request(os.environ["NANONETS_BASE_URL"] + "/api/v4/workflows", headers=fields)
    try:
        return urllib.request.urlopen(request).status
    except urllib.error.HTTPError as error:
        return json.load(error)["code"]

def basic(text):
    return "Basic " + base64.b64encode(text.encode()).decode()

def processes_with(secret):
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        for file in ("environ", "cmdline"):
            try:
                if secret in (folder / file).read_bytes():
                    yield str(folder)
            except OSError:
                pass

token = os.environ["NANONETS_API_KEY"]
print(json.dumps({
    "variables": {name: value for name, value in os.environ.items() if name.upper().startswith("NANONETS")},
    "basic": status(Authorization=basic(token + ":")),
    "password": status(Authorization=basic(":" + token)),
    "bearer": status(Authorization="Bearer " + token),
    "none": status(),
    "files": sorted(os.readlink(file) for file in pathlib.Path("/proc/self/fd").iterdir() if file.exists()),
    "shown_by": list(processes_with(sys.argv[1][::-1].encode())) if len(sys.argv) > 1 else [],
}))
sys.exit(7)
"""


def python(script: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", script, *arguments]


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Returns a function that runs the program until all its processes have ended: each has standard error open."""

    def run(*arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
        return completed(["run", *arguments], environment(**env), tmp_path)

    return run


@pytest.fixture
def run_real(tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Returns a function like `run`, which starts an interpreter of its own."""

    def run_real(*arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
        return finished([*COMMAND, "run", *arguments], tmp_path, **env)

    return run_real


def test_the_command_calls_with_a_token_and_never_sees_the_key(run_real) -> None:
    key = secrets.token_hex(16)
    with sandbox(key=key) as upstream:
        done = run_real(
            "--upstream",
            upstream,
            "--",
            *python(PROBE, key[::-1]),
            NANONETS_API_KEY=key,
            NANONETS_PROXY_RETRIES="0",
        )
    assert (done.returncode, done.stderr) == (7, "")
    seen = json.loads(done.stdout)
    assert seen["variables"].keys() == {"NANONETS_API_KEY", "NANONETS_BASE_URL"}
    assert seen["variables"]["NANONETS_API_KEY"].startswith("nnp_")
    assert seen["variables"]["NANONETS_BASE_URL"].startswith("http://127.0.0.1:")
    assert (seen["basic"], seen["password"], seen["bearer"], seen["none"]) == (200, 200, 200, "unknown_caller")
    assert [file for file in seen["files"] if "socket" in file or "pidfd" in file] == []
    assert seen["shown_by"] == []


def test_a_proxy_with_the_sandbox_needs_no_key(run) -> None:
    done = run("--sandbox", "--", *python(PROBE))
    assert (done.returncode, done.stderr) == (7, "")
    assert json.loads(done.stdout)["basic"] == 200


def test_without_settings_the_command_starts_before_the_proxy_serves(run_real) -> None:
    """A request to the socket waits until the proxy serves, and an unknown token is rejected as always."""
    script = PROBE.partition("token =")[0] + "print(status(Authorization='Bearer x'))"
    done = run_real("--", *python(script), NANONETS_API_KEY=KEY)
    assert (done.returncode, done.stdout, done.stderr) == (0, "unknown_caller\n", "")


def test_the_command_starts_once_its_settings_and_key_are_valid_and_before_the_proxy_serves(
    tmp_path: Path,
) -> None:
    script = """
import pathlib, sys
import nanonets_proxy.process.serve
nanonets_proxy.process.serve.serve = lambda *_: len(pathlib.Path("started").read_text()) - 4
from nanonets_proxy.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
    os.mkfifo(tmp_path / "started")
    (tmp_path / "key").write_text(KEY)
    flags = ("--max-wait", "3s", "--api-key-file", "key")
    done = finished(python(script, "run", *flags, "--", "sh", "-c", "echo now > started"), tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_valid_settings_are_remembered_and_wrong_ones_start_no_command_after_them(run, tmp_path: Path) -> None:
    digests = tmp_path / "cache/nanonets-proxy/valid-settings"
    env = {"NANONETS_API_KEY": KEY, "XDG_CACHE_HOME": str(digests.parent.parent)}
    script = PROBE.partition("token =")[0] + "print(status(Authorization='Bearer x'))"
    for _ in range(2):
        done = run("--max-wait", "3s", "--", *python(script), **env)
        assert (done.returncode, done.stdout, done.stderr) == (0, "unknown_caller\n", "")
        assert len(digests.read_text().split()) == 1
    for flags, sentence in (
        (["--max-wait", "3x"], "max_wait: '3x' is not a duration"),
        (["--max-wait", "3s", "--policy-dry-run"], "policy_dry_run: needs policy"),
    ):
        done = run(*flags, "--", "touch", "started", **env)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"nanonets-proxy: {sentence}")
    assert run("--spool-dir", str(tmp_path), "--", "true", **env).returncode == 0, "but its folder may change"
    assert len(digests.read_text().split()) == 1
    assert not (tmp_path / "started").exists()


def test_two_keys_start_no_command_in_any_run(run, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    env = {"NANONETS_API_KEY": KEY, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    for flags, variables in (
        (["--api-key-file", "key"], {}),
        ([], {"NANONETS_PROXY_API_KEY_FILE": "key"}),
        (["--max-wait", "3s"], {"NANONETS_API_KEY_FILE": "key"}),
    ):
        for _ in range(2):
            done = run(*flags, "--", "touch", "started", **env, **variables)
            assert (done.returncode, done.stdout) == (2, "")
            assert "competes with the key file" in done.stderr
    assert not (tmp_path / "started").exists()


def test_a_key_file_that_a_variable_names_does_not_make_later_runs_wait(run, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    env = {"NANONETS_API_KEY_FILE": "key", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    for _ in range(2):
        assert run("--max-wait", "3s", "--", "true", **env).returncode == 0
    assert len((tmp_path / "cache/nanonets-proxy/valid-settings").read_text().split()) == 1


def test_a_proxy_does_not_outlive_a_command_that_ends_at_once(run) -> None:
    done = run("--", "true", NANONETS_API_KEY=KEY)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "env", "code", "sentence"),
    [
        ([], {}, 2, "run: needs a command behind --, such as: nanonets-proxy run -- python job.py"),
        (["--"], {}, 2, "run: needs a command behind --"),
        (["--", "touch", "started"], {}, 2, "no API key was given"),
        (["--", "touch", "started"], {"NANONETS_API_KEY": "a:b"}, 2, "the API key of env:NANONETS_API_KEY has a"),
        (
            ["--", "touch", "started"],
            {"NANONETS_API_KEY": make_token(bytes(32))},
            2,
            "the API key of env:NANONETS_API_KEY is a token of another",
        ),
        (["--max-wait", "x", "--", "touch", "started"], {"NANONETS_API_KEY": KEY}, 2, "max_wait: 'x' is not a dur"),
        (["--api-key-command", "false", "--", "touch", "started"], {}, 2, "the API key of command:false is"),
        (["--api-key-file", "none", "--", "touch", "started"], {}, 2, "the API key of file:none is unavailable"),
        (["--listen", ":1", "--", "touch", "started"], {"NANONETS_API_KEY": KEY}, 2, "--listen: has no effect on"),
        (["--state-file", "s", "--", "touch", "started"], {"NANONETS_API_KEY": KEY}, 2, "--state-file: has no ef"),
        (["--jobs", "j", "--", "touch", "started"], {"NANONETS_API_KEY": KEY}, 2, "--jobs: has no effect"),
        (["--env", "a", "--", "touch", "started"], {"NANONETS_API_KEY": KEY}, 2, "--env: is no environment of the"),
        (["--", "no-such-command"], {"NANONETS_API_KEY": KEY}, 127, "no-such-command: command not found"),
        (["--", "", "argument"], {"NANONETS_API_KEY": KEY}, 127, "'': command not found"),  # as from "$UNSET"
        (["--", "./started/x"], {"NANONETS_API_KEY": KEY}, 127, "./started/x: command not found"),
        (["--", "/etc/passwd"], {"NANONETS_API_KEY": KEY}, 126, "/etc/passwd: cannot be executed: permission deni"),
    ],
)
def test_an_error_is_one_sentence_and_the_command_does_not_start(
    arguments: list[str], env: dict[str, str], code: int, sentence: str, run, tmp_path: Path
) -> None:
    done = run(*arguments, **env)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(f"nanonets-proxy: {sentence}")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("flags", [(), ("--max-wait", "3s"), ("--sandbox",)])
def test_no_command_starts_if_aiohttp_must_parse_in_python(
    flags: tuple[str, ...], run_real, tmp_path: Path
) -> None:
    env = {"AIOHTTP_NO_EXTENSIONS": "1"} | ({} if "--sandbox" in flags else {"NANONETS_API_KEY": KEY})
    done = run_real(*flags, "--", "touch", "started", **env)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "nanonets-proxy: aiohttp lacks its compiled parser here; unset AIOHTTP_NO_EXTENSIONS\n"
    assert not (tmp_path / "started").exists()


def test_a_command_is_not_found_also_if_a_directory_of_path_may_not_be_searched(run, tmp_path: Path) -> None:
    """Root may search it, so only the run as another user shows the difference."""
    (tmp_path / "hidden").mkdir(mode=0)
    done = run("--", "no-such-command", NANONETS_API_KEY=KEY, PATH=f"{tmp_path / 'hidden'}:{os.environ['PATH']}")
    assert (done.returncode, done.stderr) == (127, "nanonets-proxy: no-such-command: command not found\n")


def test_a_run_inside_a_run_says_that_it_has_a_token(run) -> None:
    done = run("--", *COMMAND, "run", "--", "touch", "started", NANONETS_API_KEY=KEY)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("nanonets-proxy: the API key of env:NANONETS_API_KEY is a token of another")


def test_a_run_of_the_sandbox_inside_a_run_is_a_proxy_of_its_own(run) -> None:
    done = run("--", *COMMAND, "run", "--sandbox", "--", *python(PROBE), NANONETS_API_KEY=KEY)
    assert (done.returncode, done.stderr) == (7, "")
    assert json.loads(done.stdout)["basic"] == 200


@pytest.mark.parametrize("arguments", [["serve", "--sandbox"], ["run", "--sandbox", "--", "touch", "started"]])
def test_too_few_open_files_are_an_error_that_says_how_to_get_more(arguments: list[str], tmp_path: Path) -> None:
    done = finished(["sh", "-c", 'ulimit -n 12 && exec "$@"', "sh", *COMMAND, *arguments], tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "nanonets-proxy: too few files can be opened (Too many open files), the limit is 12: raise the limit of "
        "open files: ulimit -n, LimitNOFILE= of systemd, --ulimit nofile= of containers\n"
    )
    assert not (tmp_path / "started").exists()


def test_a_low_soft_limit_is_raised_for_the_proxy_and_stays_for_the_command(tmp_path: Path) -> None:
    script = "import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    command = [*COMMAND, "run", "--sandbox", "--", *python(script)]
    done = finished(["sh", "-c", 'ulimit -S -n 12 && exec "$@"', "sh", *command], tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "12\n", "")


def test_several_environments_need_a_choice(run, tmp_path: Path) -> None:
    with sandbox(key="staging-key") as upstream:
        (tmp_path / "nanonets-proxy.toml").write_text(
            f'[environments.staging]\nupstream = "{upstream}"\nlisten = [":80"]\nallow_from = ["0.0.0.0/0"]\n'
            '[environments.production]\nlisten = ["localhost:81"]\n'
        )
        keys = {"NANONETS_API_KEY_STAGING": "staging-key", "NANONETS_API_KEY_PRODUCTION": "s3cret"}
        refused = run("--", *python(PROBE), **keys)
        done = run("--env", "staging", "--", *python(PROBE), **keys)
    assert refused.returncode == 2
    assert refused.stderr == (
        "nanonets-proxy: the settings have several environments: choose one with --env (staging, production)\n"
    )
    assert (done.returncode, done.stderr) == (7, "")
    assert json.loads(done.stdout)["basic"] == 200


# --- signals and terminal -----------------------------------------------------------------------


class Started:
    """A running `nanonets-proxy run`, whose command has written the address of its proxy."""

    def __init__(self, script: str, folder: Path) -> None:
        say = "import os; print(os.environ['NANONETS_BASE_URL'], flush=True)\n"
        self.process = ForkedCommand(["run", "--sandbox", "--", *python(say + script)], environment(), folder)
        host, _, port = self.process.stdout.readline().decode().removeprefix("http://").strip().rpartition(":")
        self.address = host, int(port)

    def end(self) -> tuple[int, bytes, bytes]:
        """Returns exit code and output, once all processes have ended."""
        with self.process.stdout, self.process.stderr:
            return self.process.wait(END_S), self.process.stdout.read(), self.process.stderr.read()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_the_command_and_with_it_the_proxy(number: int, tmp_path: Path) -> None:
    started = Started("import time; time.sleep(300)", tmp_path)
    socket.create_connection(started.address).close()
    started.process.send_signal(number)
    assert started.end() == (-number, b"", b"")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(started.address)


def test_the_command_handles_its_signals_itself(tmp_path: Path) -> None:
    started = Started(
        "import signal, sys; signal.signal(15, lambda *_: sys.exit(9)); print(flush=True); signal.pause()", tmp_path
    )
    started.process.stdout.readline()
    started.process.send_signal(signal.SIGTERM)
    assert started.end() == (9, b"", b"")


def test_signals_are_ignored_in_the_command_exactly_if_they_were_before(tmp_path: Path) -> None:
    """SIGPIPE counts too: Python ignores it, and a command that is no Python program must not."""
    show = "grep SigIgn /proc/self/status"
    script = f"trap '' INT; {show}; {' '.join(COMMAND)} run --sandbox -- {show}"
    done = finished(["sh", "-c", script], tmp_path)
    before, within = done.stdout.splitlines()
    assert int(before.split()[1], 16) & 1 << signal.SIGINT - 1
    assert within == before


@pytest.mark.parametrize(
    ("flags", "closed"),
    [((), "<&-"), ((), ">&-"), ((), "2>&-"), ((), "<&- >&- 2>&-"), (("--sandbox",), "<&- >&- 2>&-")],
)
def test_standard_files_may_be_closed_and_are_so_for_the_command(
    flags: tuple[str, ...], closed: str, tmp_path: Path
) -> None:
    """Some supervisors start programs without them, and no socket of the proxy may take their numbers."""
    script = f"""
import sys
closed = [number for number, file in enumerate((sys.stdin, sys.stdout, sys.stderr)) if file is None]
{PROBE.partition("token =")[0]}
code = status(Authorization="Bearer x")
pathlib.Path("seen").write_text(json.dumps([closed, code]))
"""
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *COMMAND, "run", *flags, "--", *python(script)],
        env=environment() if flags else environment(NANONETS_API_KEY=KEY),
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=END_S,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    expected = [
        number for number, redirection in enumerate(("<&-", ">&-", "2>&-")) if redirection in closed.split()
    ]
    assert json.loads((tmp_path / "seen").read_text()) == [expected, "unknown_caller"]


def test_ignored_ends_of_children_are_so_for_the_command(tmp_path: Path) -> None:
    """Some supervisors start programs with SIGCHLD ignored."""
    ignore = (
        "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    )
    show = python("import signal; print(signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN)")
    done = finished(python(ignore, *COMMAND, "run", "--sandbox", "--", *show), tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


def test_the_end_of_the_commands_output_does_not_wait_for_the_proxy(tmp_path: Path) -> None:
    started = Started("import os, time; os.close(1); time.sleep(300)", tmp_path)
    assert started.process.stdout.read() == b""
    assert started.process.poll() is None
    started.process.kill()
    started.end()


def test_the_command_has_no_child_that_it_did_not_start(tmp_path: Path) -> None:
    started = Started("import os\ntry: os.wait()\nexcept ChildProcessError: os._exit(9)", tmp_path)
    assert started.end() == (9, b"", b"")


class Terminal:
    """A terminal in which a program runs."""

    def __init__(self, command: list[str], env: Mapping[str, str], folder: Path) -> None:
        self._end, other = pty.openpty()
        # A shell starts commands in the background with SIGQUIT ignored, and this test may be one.
        start = (
            "import os, signal, sys; os.login_tty(0); signal.signal(signal.SIGQUIT, signal.SIG_DFL); "
            "os.execvp(sys.argv[1], sys.argv[1:])"
        )
        self.process = subprocess.Popen(
            python(start, *command), env=dict(env), cwd=folder, stdin=other, stdout=other, stderr=other
        )
        os.close(other)

    def type(self, text: bytes) -> None:
        os.write(self._end, text)

    def read_until(self, mark: str) -> str:
        shown = ""
        while mark not in shown:
            try:
                shown += os.read(self._end, 65536).decode()
            except OSError:  # the program has ended
                pytest.fail(f"the terminal shows {shown!r} without {mark!r}")
        return shown

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._end)


def test_ctrl_c_reaches_the_command_once_and_never_the_proxy(tmp_path: Path) -> None:
    script = (
        PROBE.partition("token =")[0]
        + """
import signal
def interrupted(*_):
    # Not print: the next signal may come while its buffer is written, and a nested print is an error.
    os.write(1, b"interrupted %d\\n" % status(Authorization="Bearer " + os.environ["NANONETS_API_KEY"]))
signal.signal(signal.SIGINT, interrupted)
print("foreground", os.tcgetpgrp(0) == os.getpgrp() == os.getpid(), flush=True)
while True:
    signal.pause()
"""
    )
    terminal = Terminal([*COMMAND, "run", "--sandbox", "--", *python(script)], environment(), tmp_path)
    try:
        assert "foreground True" in terminal.read_until("\n")
        for _ in range(2):
            terminal.type(b"\x03")
            assert terminal.read_until("interrupted 200\r\n").count("interrupted") == 1
        terminal.type(b"\x1c")  # Ctrl-\
        assert terminal.process.wait(END_S) == -signal.SIGQUIT
    finally:
        terminal.close()


async def test_the_proxy_ends_although_a_child_of_the_command_lives_on(tmp_path: Path) -> None:
    script = "import subprocess; print(subprocess.Popen(['sleep', '300'], stdout=-3, stderr=-3).pid, flush=True)"
    started = Started(script, tmp_path)
    child = int(started.process.stdout.readline())
    assert started.end() == (0, b"", b"")
    os.kill(child, signal.SIGKILL)

    def is_refused() -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(started.address) != 0

    await until(is_refused)


def test_other_flags_of_the_command_are_its_own(run: Callable[..., Any]) -> None:
    done = run("--", "echo", "--help", "--", "--listen", NANONETS_API_KEY=KEY)
    assert (done.returncode, done.stdout, done.stderr) == (0, "--help -- --listen\n", "")
