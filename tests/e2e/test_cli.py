"""The command line of the real process: its output and its exit codes."""

import http.server
import importlib.util
import json
import os
import re
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from nanonets_proxy import __version__
from nanonets_proxy.core.net.addresses import LISTEN_FORMS
from support.commands.process import COMMAND, END_S, environment, finished
from support.eventually import until

OK, FAILED, USAGE_ERROR = 0, 1, 2
COMMANDS = ("serve", "check", "sandbox", "config", "healthcheck")


# --- help and version --------------------------------------------------------------------------


def test_the_version_is_printed(run) -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (OK, f"nanonets-proxy {__version__}\n")


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_shows_commands_examples_and_the_way_to_the_reference(flag: str, run) -> None:
    done = run(flag)
    assert done.returncode == OK
    for command in COMMANDS:
        assert f"\n  {command} " in done.stdout
    for use in (
        "nanonets-proxy serve --sandbox",
        "nanonets-proxy check",
        "nanonets-proxy config --reference",
        "NANONETS_API_KEY=...",
    ):
        assert use in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 105


@pytest.mark.parametrize("command", ["serve", "sandbox"])
def test_the_help_of_a_serving_command_lists_its_settings(command: str, run) -> None:
    done = run(command, "--help")
    assert done.returncode == OK
    assert done.stdout.startswith(f"usage: nanonets-proxy {command} [flags]\n")
    assert "--listen ADDRESS" in done.stdout
    assert "A DURATION is a number of seconds, or 500ms, 30s," in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("command", "usage", "own"),
    [
        ("check", "check [flags]", {"--help", "--config", "--json"}),
        ("config", "config [flags]", {"--help", "--config", "--changed", "--reference", "--schema"}),
        ("healthcheck", "healthcheck [flags]", {"--help", "--config"}),
        ("reload", "reload [flags]", {"--help", "--config"}),
        ("token", "token NAME [flags]", {"--help"}),
        ("policy test", "policy test FILE [flags]", {"--help", "--json", "--since", "--until"}),
    ],
)
def test_the_help_of_any_other_command_lists_only_its_own_flags(
    command: str, usage: str, own: set[str], run
) -> None:
    done = run(*command.split(), "--help")
    assert done.returncode == OK
    assert done.stdout.startswith(f"usage: nanonets-proxy {usage}\n")
    flags = done.stdout.partition("options:")[2].partition("\n\n")[0]
    assert set(re.findall(r"--[a-z-]+", flags)) == own
    shown = " ".join(done.stdout.split())
    assert ("flags of all settings too. `nanonets-proxy serve --help` lists" in shown) == (command != "token")


@pytest.mark.parametrize(("command", "argument"), [("token", "NAME"), ("policy test", "FILE")])
def test_the_help_explains_the_argument_of_a_command(command: str, argument: str, run) -> None:
    shown = run(*command.split(), "--help").stdout
    assert re.search(rf"^  {argument} +\w+", shown, re.MULTILINE)


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_the_first_word_of_a_command_of_two_words_has_the_help_of_that_command(flag: str, run) -> None:
    done = run("policy", flag)
    assert done.returncode == OK
    assert done.stdout == run("policy", "test", flag).stdout
    assert done.stdout.startswith("usage: nanonets-proxy policy test FILE [flags]\n")


# --- usage errors -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["sevre"], "sevre: unknown command; did you mean serve?"),
        (["sevre", "--help"], "sevre: unknown command; did you mean serve?"),
        (["policy", "--json"], "policy: unknown command; did you mean policy test?"),
        (
            ["s3cret"],
            "the first argument is not a command; the commands are serve, run, check, sandbox, config, healthcheck",
        ),
        (["serve", "--listn", "x"], "--listn: unknown flag; did you mean --listen?"),
        (["--listn=x"], "--listn: unknown flag; did you mean --listen?"),
        (["--list", "x"], "--list: unknown flag; did you mean --listen?"),
        (["check", "--jsn"], "--jsn: unknown flag; did you mean --json?"),
        (["sandbox", "--limits", "1/s"], "--limits: unknown flag; did you mean --limit?"),
        (
            ["sandbox", "--config", "x"],
            "--config: unknown flag; `nanonets-proxy config --reference` lists all settings",
        ),
        (
            ["--api-key", "s3cret"],
            "--api-key: unknown flag; a flag cannot hold the key, as other users could see it: set NANONETS_API",
        ),
        (
            ["--api-key=s3cret"],
            "--api-key: unknown flag; a flag cannot hold the key, as other users could see it: set NANONETS_API",
        ),
        (
            ["serve", "s3cret"],
            "an argument is neither a flag nor the value of a flag; flags start with --, and a command comes first",
        ),
        (["--via"], "--via: needs a value; see `nanonets-proxy serve --help`"),
        (["--max-wait", "-5s"], "--max-wait: needs a value; see `nanonets-proxy serve --help`"),
        (["--read-only=s3cret"], "--read-only: takes no value; see `nanonets-proxy serve --help`"),
        (["serve", "--help=s3cret"], "--help: takes no value; see `nanonets-proxy serve --help`"),
        (["-hs3cret"], "--help: takes no value; see `nanonets-proxy serve --help`"),
        (["check", "-hs3cret"], "--help: takes no value; see `nanonets-proxy check --help`"),
        (["status", "--watch=5"], "--watch: takes no value; see `nanonets-proxy status --help`"),
        (["config", "--env", "x"], "--env: unknown flag; `nanonets-proxy config --reference` lists all settings"),
        (
            ["policy", "test", "--confg", "x", "f"],
            "--confg: unknown flag; `nanonets-proxy config --reference` lists",
        ),
        (["policy", "test", "/no/such.toml"], "/no/such.toml: does not exist (FILE)"),
        (["config", "--schema", "--reference"], "--schema and --reference exclude each other"),
        (["config", "--changed", "--schema"], "--schema and --changed exclude each other"),
        (["token", "billing", "--listen=x"], "--listen: unknown flag; see `nanonets-proxy token --help`"),
    ],
)
def test_a_usage_error_is_one_line_and_exit_code_2(arguments: list[str], sentence: str, run) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (USAGE_ERROR, "")
    assert done.stderr.startswith(f"nanonets-proxy: {sentence}")
    assert done.stderr.count("\n") == 1
    assert "s3cret" not in done.stderr


@pytest.mark.parametrize("arguments", [["--pool-size", "0"], ["serve", "--pool-size", "0"]])
def test_the_default_command_is_serve(arguments: list[str], run) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (USAGE_ERROR, "")
    assert done.stderr == "nanonets-proxy: pool_size: must be between 1 and 16384, not 0 (flag --pool-size)\n"


@pytest.mark.parametrize("command", ["serve", "config"])
def test_each_settings_fault_is_a_line_on_standard_error(command: str, run) -> None:
    env = {"NANONETS_PROXY_LISTN": "x", "NANONETS_PROXY_EGRESS_PROXY": "ftp://u:s3cret@proxy"}
    durations = "write seconds, or 500ms, 30s, 5m, 1h"
    done = run(command, "--max-wait", "soon", env=env)
    assert (done.returncode, done.stdout) == (USAGE_ERROR, "")
    assert done.stderr.splitlines() == [
        "nanonets-proxy: NANONETS_PROXY_LISTN: unknown setting (environment); did you mean NANONETS_PROXY_LISTEN?",
        "nanonets-proxy: egress_proxy: must start with http:// (environment NANONETS_PROXY_EGRESS_PROXY)",
        f"nanonets-proxy: max_wait: 'soon' is not a duration: {durations} (flag --max-wait)",
    ]


def test_an_invalid_sandbox_setting_is_exit_code_2(run) -> None:
    done = run("sandbox", "--limit", "many")
    assert done.returncode == USAGE_ERROR
    assert done.stderr.startswith("nanonets-proxy: limit: 'many' is not COUNT/WINDOW")


# --- no traceback ------------------------------------------------------------------------------


@contextmanager
def _full() -> Iterator[int]:
    with Path("/dev/full").open("wb") as file:
        yield file.fileno()


@contextmanager
def _without_reader() -> Iterator[int]:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        yield writer
    finally:
        os.close(writer)


@pytest.mark.parametrize(
    ("arguments", "output", "code", "sentence"),
    [
        *(
            (arguments.split(), _full, FAILED, "standard output cannot be written: no space left on device")
            for arguments in ("config", "config --reference", "check --help", "--version", "token billing")
        ),
        (["config", "--reference"], _without_reader, 128 + signal.SIGPIPE, ""),
        (["token", "billing"], _without_reader, 128 + signal.SIGPIPE, ""),
    ],
)
def test_output_that_cannot_be_written_is_at_most_one_sentence(
    arguments: list[str],
    output: Callable[[], AbstractContextManager[int]],
    code: int,
    sentence: str,
    tmp_path: Path,
) -> None:
    with output() as file:
        done = subprocess.run(
            [*COMMAND, *arguments],
            cwd=tmp_path,
            stdout=file,
            stderr=subprocess.PIPE,
            text=True,
            timeout=END_S,
            check=False,
        )
    assert (done.returncode, done.stderr) == (code, sentence and f"nanonets-proxy: {sentence}\n")


@pytest.mark.parametrize("arguments", ["config", "--version"])
def test_closed_output_is_one_sentence(arguments: str, tmp_path: Path) -> None:
    done = finished(["sh", "-c", f"{' '.join(COMMAND)} {arguments} >&-"], tmp_path)
    assert (done.returncode, done.stderr) == (FAILED, "nanonets-proxy: standard output is closed\n")


async def test_a_server_starts_with_all_standard_files_closed(tmp_path: Path) -> None:
    """Some supervisors start programs so. The log goes nowhere then."""
    path = tmp_path / "socket"
    command = [*COMMAND, "serve", f"--listen=unix:{path}", "--admin-listen=off"]
    child = subprocess.Popen(  # noqa: ASYNC220 - starts at once
        ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command], env=environment(NANONETS_API_KEY="k"), cwd=tmp_path
    )
    with socket.socket(socket.AF_UNIX) as caller, child:
        try:
            await until(lambda: child.poll() is not None or caller.connect_ex(str(path)) == 0, END_S)
        finally:
            child.terminate()
        assert child.wait(END_S) == OK


def test_sigint_ends_a_command_without_a_traceback(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        upstream = f"http://127.0.0.1:{silent.getsockname()[1]}"
        process = subprocess.Popen(
            [sys.executable, "-m", "nanonets_proxy", "check", "--upstream", upstream],
            cwd=tmp_path,
            env=os.environ | {"NANONETS_API_KEY": "k"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with process:
            connection, _ = silent.accept()
            with connection:
                process.send_signal(signal.SIGINT)
                _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (128 + signal.SIGINT, b"")


# --- the key -----------------------------------------------------------------------------------


def test_serve_without_a_key_names_every_source_and_the_sandbox(run) -> None:
    done = run("serve")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (USAGE_ERROR, "", 1)
    assert done.stderr.startswith("nanonets-proxy: no API key was given: set NANONETS_API_KEY, or set ")
    assert "nanonets-proxy serve --sandbox" in done.stderr


@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        ({"NANONETS_API_KEY": "s3cret:"}, "the API key of env:NANONETS_API_KEY has a colon in it"),
        ({"NANONETS_API_KEY": " "}, "the API key of env:NANONETS_API_KEY is empty"),
        (
            {"NANONETS_API_KEY": "s3cret", "NANONETS_API_KEY_FILE": "/k"},
            (
                "the API key of env:NANONETS_API_KEY competes with the key file /k "
                "(NANONETS_API_KEY_FILE, api_key_file): keep one"
            ),
        ),
        (
            {"NANONETS_API_KEY_FILE": "/no/such/key"},
            "the API key of file:/no/such/key is unavailable: the file does not exist",
        ),
        ({"NANONETS_API_KEY_FILE": "/"}, "the API key of file:/ is unavailable: the file is a directory"),
    ],
)
def test_an_unusable_key_ends_serve_before_it_listens(env: dict[str, str], sentence: str, run) -> None:
    done = run("serve", env=env)
    assert (done.returncode, done.stdout, done.stderr) == (USAGE_ERROR, "", f"nanonets-proxy: {sentence}\n")


def test_serve_checks_the_files_of_the_settings(run) -> None:
    done = run("serve", "--ca-file", "/no/ca.pem", env={"NANONETS_API_KEY": "k"})
    assert done.returncode == USAGE_ERROR
    assert done.stderr == "nanonets-proxy: ca_file: /no/ca.pem does not exist (flag --ca-file)\n"


# --- check -------------------------------------------------------------------------------------


def test_check_names_the_invalid_setting(run) -> None:
    done = run("check", "--pool-size", "0")
    assert (done.returncode, done.stderr) == (FAILED, "")
    assert done.stdout == "fail  settings  pool_size: must be between 1 and 16384, not 0 (flag --pool-size)\n"


def test_check_reports_a_missing_key(run) -> None:
    done = run("check", "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["ok"]) == (FAILED, False)
    assert [(line["name"], line["ok"]) for line in report["checks"]] == [("settings", True), ("key", False)]
    assert "no API key was given" in report["checks"][1]["detail"]


def test_check_shows_the_source_of_the_key_and_never_the_key(run, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("s3cret\n")
    done = run("check", "--upstream", "http://127.0.0.1:1", env={"NANONETS_API_KEY_FILE": "key"})
    assert done.stdout.splitlines()[:2] == [
        "ok    settings  valid; 2 set, all others have their defaults",
        "ok    key       file:key",
    ]
    assert "s3cret" not in done.stdout + done.stderr


def test_check_says_where_it_tried_to_connect_and_which_variable_has_no_effect(run) -> None:
    env = {"NANONETS_API_KEY": "k", "HTTPS_PROXY": "http://user:s3cret@127.0.0.1:9"}
    done = run("check", "--upstream", "https://nanonets.invalid", env=env)
    lines = done.stdout.splitlines()
    assert done.returncode == FAILED
    assert lines[2] == "warn  egress proxy  HTTPS_PROXY is set, but only the setting egress_proxy has an effect"
    assert lines[3].startswith(
        "fail  upstream      https://nanonets.invalid: The upstream's host name could not be"
    )
    assert "HTTPS_PROXY is set" in lines[3]
    assert "tried nanonets.invalid:443" in lines[3]
    assert "s3cret" not in done.stdout + done.stderr


def test_check_tests_the_server_of_a_fleet_as_the_start_does(run) -> None:
    """The client of Redis may be missing here, and at this address no server is."""
    arguments = ("--coordination", "redis://127.0.0.1:1/0", "--coordination-required")
    done = run("check", *arguments, env={"NANONETS_API_KEY": "k"})
    assert done.returncode == FAILED
    (line,) = [line for line in done.stdout.splitlines() if "coordination" in line]
    if importlib.util.find_spec("redis") is None:
        assert line == "fail  coordination  install the extra nanonets-proxy[redis]"
        return
    assert line.startswith("fail  coordination  redis://127.0.0.1:1/0 cannot be reached: ")
    assert line.endswith("; this proxy would begin alone, and /readyz would say 503")
    done = run("check", *arguments[:2], env={"NANONETS_API_KEY": "k"})
    (line,) = [line for line in done.stdout.splitlines() if "coordination" in line]
    assert line.startswith("warn  coordination")
    assert line.endswith("; this proxy would begin alone")


@pytest.mark.parametrize("name", ["missing/state.json", ""])
def test_check_reports_a_state_file_that_cannot_be_written(name: str, run, tmp_path: Path) -> None:
    path = tmp_path / name
    done = run(
        "check", "--upstream", "http://127.0.0.1:1", "--state-file", str(path), env={"NANONETS_API_KEY": "k"}
    )
    assert done.returncode == FAILED
    fault = "no such file or directory" if name else "is a directory"
    assert f"fail  state file  {path} cannot be written: {fault}" in done.stdout.splitlines()


def test_check_warns_if_the_spool_disk_is_smaller_than_spool_total(run) -> None:
    """The line comes before the key and connection are tested."""
    key = {"NANONETS_API_KEY": "k"}
    done = run("check", "--upstream", "http://127.0.0.1:1", "--spool-total", "1000000GiB", env=key)
    (line,) = [line for line in done.stdout.splitlines() if "spool disk" in line]
    assert line.startswith("warn  spool disk  ")
    assert line.endswith("MiB free, less than spool_total (1024000000 MiB)")


def test_check_of_a_writable_state_file_leaves_nothing_behind(run, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    path = tmp_path / "state" / "state.json"
    done = run(
        "check", "--upstream", "http://127.0.0.1:1", "--state-file", str(path), env={"NANONETS_API_KEY": "k"}
    )
    assert f"ok    state file  {path} is writable" in done.stdout.splitlines()
    assert list(path.parent.iterdir()) == []


def test_check_of_the_sandbox_needs_no_key(run) -> None:
    done = run("check", "--sandbox")
    assert done.returncode == OK
    assert done.stdout.splitlines()[:2] == [
        "ok    settings  valid; 1 set, all others have their defaults",
        "ok    key       not needed: the sandbox is served",
    ]


# --- config ------------------------------------------------------------------------------------


def test_config_shows_the_settings_with_sources_and_without_secrets(run, tmp_path: Path) -> None:
    (tmp_path / "nanonets-proxy.toml").write_text("max_wait = 7\n")
    env = {
        "NANONETS_PROXY_EGRESS_PROXY": "http://someone:s3cret@proxy.example.com:3128",
        "NANONETS_API_KEY": "s3cret",
    }
    done = run("config", "--via", "edge", env=env)
    assert (done.returncode, done.stderr) == (OK, "")
    assert "\n# flag --via\nvia = " in done.stdout
    assert "\n# nanonets-proxy.toml\nmax_wait = " in done.stdout
    assert "s3cret" not in done.stdout
    assert "someone" not in done.stdout
    assert tomllib.loads(done.stdout)["egress_proxy"] == "http://***@proxy.example.com:3128"


def test_config_changed_shows_only_the_settings_that_differ_and_their_sources(run, tmp_path: Path) -> None:
    (tmp_path / "nanonets-proxy.toml").write_text(
        "max_wait = 7\nretries = 2\n[environments.staging]\nvia = 'edge'\nlisten = '127.0.0.1:8082'\n"
    )
    done = run("config", "--changed", env={"NANONETS_PROXY_LOG_LEVEL": "warning", "NANONETS_PROXY_POOL_SIZE": "7"})
    assert (done.returncode, done.stderr) == (OK, "")
    values = tomllib.loads(done.stdout)
    assert values["log_level"] == "warning"
    assert values["environments"] == {
        "staging": {"max_wait": "7s", "via": "edge", "listen": ["127.0.0.1:8082"], "pool_size": 7}
    }
    assert "\n# environment NANONETS_PROXY_LOG_LEVEL\nlog_level = " in done.stdout
    assert "\n# nanonets-proxy.toml, environments.staging\nvia = " in done.stdout
    assert "retries" not in done.stdout  # the file sets it to its default
    assert "# default" not in done.stdout


def test_config_changed_without_changes_is_one_comment(run) -> None:
    done = run("config", "--changed")
    assert (done.returncode, done.stdout.count("\n")) == (OK, 1)
    assert done.stdout.startswith("# The settings that differ from their defaults. ")


def test_config_writes_reference_and_schema_even_if_settings_are_invalid(run) -> None:
    env = {"NANONETS_PROXY_LISTEN": "wrong"}
    assert run("config", "--reference", env=env).stdout.startswith("## nanonets-proxy: all settings")
    assert json.loads(run("config", "--schema", env=env).stdout)["title"] == "nanonets-proxy"


def test_config_reads_the_file_named_by_flag_or_environment(run, tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text('via = "other"\n')
    for done in (
        run("config", "--config", "other.toml"),
        run("config", env={"NANONETS_PROXY_CONFIG": "other.toml"}),
    ):
        assert '\n# other.toml\nvia = "other"\n' in done.stdout


# --- healthcheck -------------------------------------------------------------------------------


class _Readiness(http.server.BaseHTTPRequestHandler):
    """Responds to /readyz with `response`."""

    response = (200, b"")

    def do_GET(self) -> None:
        status, body = self.response if self.path == "/readyz" else (404, b"")
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Logs nothing."""

    def address_string(self) -> str:
        return "test"


class _UnixServer(socketserver.UnixStreamServer):
    pass


@contextmanager
def _serving(server: socketserver.BaseServer, status: int, body: bytes) -> Iterator[None]:
    _Readiness.response = (status, body)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "code", "words"),
    [
        (200, b"ok\n", OK, "healthy"),
        (503, b"draining\nmore", FAILED, "unhealthy: 503 draining"),
        (404, b"", FAILED, "unhealthy: 404 Not Found"),
    ],
)
def test_healthcheck_reports_the_state_of_the_admin_listener(
    status: int, body: bytes, code: int, words: str, run
) -> None:
    server = http.server.HTTPServer(("127.0.0.1", 0), _Readiness)
    with _serving(server, status, body):
        done = run("healthcheck", env={"NANONETS_PROXY_ADMIN_LISTEN": f"127.0.0.1:{server.server_port}"})
    assert (done.returncode, done.stdout, done.stderr) == (code, f"{words}\n", "")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('max_wiat = "7s"\nadmin_listen = "{address}"\n', "max_wiat: unknown setting"),
        ('listen = ":8080"\nadmin_listen = "{address}"\n', "listen: other machines can reach"),
        ('key_timeout = "7x"\nadmin_listen = "{address}"\n', "key_timeout: '7x' is not a duration"),
        ("max_wait = 7s\n", "nanonets-proxy.toml:1: Expected newline"),
    ],
)
def test_healthcheck_asks_a_running_proxy_although_its_settings_file_has_a_fault_now(
    text: str, fault: str, run, tmp_path: Path
) -> None:
    server = http.server.HTTPServer(("127.0.0.1", 0), _Readiness)
    address = f"127.0.0.1:{server.server_port}"
    file = tmp_path / "nanonets-proxy.toml"
    file.write_text(text.format(address=address))
    env = {} if "{address}" in text else {"NANONETS_PROXY_ADMIN_LISTEN": address}
    with _serving(server, 200, b"ok"):
        done = run("healthcheck", "--config", str(file), env=env)
    assert (done.returncode, done.stdout) == (OK, "healthy\n")
    assert fault in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "env", "fault"),
    [
        (None, {}, "nanonets-proxy.toml: does not exist"),
        ("admin_listen = localhost\n", {}, "nanonets-proxy.toml:1: Invalid value"),
        ('admin_listn = "{address}"\n', {}, "admin_listn: unknown setting"),
        (
            'admin_listen = "{address}"\n',
            {"NANONETS_PROXY_ADMIN_LISTN": ":1"},
            "NANONETS_PROXY_ADMIN_LISTN: unknown",
        ),
    ],
)
@pytest.mark.parametrize("command", ["healthcheck", "reload", "restart"])
def test_a_fault_that_may_hide_the_admin_listener_is_an_error_as_another_proxy_may_listen_elsewhere(
    command: str, text: str | None, env: dict[str, str], fault: str, run, tmp_path: Path
) -> None:
    file = tmp_path / "nanonets-proxy.toml"
    server = http.server.HTTPServer(("127.0.0.1", 0), _Readiness)
    if text is not None:
        file.write_text(text.format(address=f"127.0.0.1:{server.server_port}"))
    with _serving(server, 200, b"ok"):
        done = run(command, "--config", str(file), env=env)
    assert (done.returncode, done.stdout) == (USAGE_ERROR, "")
    fault_line, advice = done.stderr.splitlines()
    assert fault in fault_line
    assert advice == (
        "nanonets-proxy: admin_listen: cannot be known because of the errors above, so no proxy was asked: correct "
        "them, or give the running proxy's address with --admin-listen"
    )


def test_healthcheck_reaches_a_listener_on_all_interfaces_over_loopback(run) -> None:
    server = http.server.HTTPServer(("127.0.0.1", 0), _Readiness)
    with _serving(server, 200, b"ok"):
        done = run("healthcheck", "--admin-listen", f":{server.server_port}", "--allow-from", "10.0.0.0/8")
    assert (done.returncode, done.stdout) == (OK, "healthy\n")


def test_healthcheck_works_over_a_unix_socket(run, tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    with _serving(_UnixServer(str(path), _Readiness), 200, b"ok"):
        done = run("healthcheck", "--admin-listen", f"unix:{path}")
    assert (done.returncode, done.stdout) == (OK, "healthy\n")


def test_healthcheck_is_unhealthy_if_nothing_listens(run) -> None:
    with socket.socket() as taken:  # bound but not listening, so that no other process takes the port
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run("healthcheck", "--admin-listen", address)
    assert (done.returncode, done.stdout) == (
        FAILED,
        f"unhealthy: no response from {address}: connection refused\n",
    )


def test_healthcheck_is_unhealthy_if_the_server_does_not_speak_http(run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        address = f"127.0.0.1:{server.getsockname()[1]}"

        def hang_up() -> None:
            connection, _ = server.accept()
            connection.recv(1024)
            connection.sendall(b"what?\r\n")
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        done = run("healthcheck", "--admin-listen", address)
        thread.join()
    assert (done.returncode, done.stdout) == (
        FAILED,
        f"unhealthy: the server on {address} does not speak HTTP\n",
    )


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("off", "admin_listen: is off, so this command cannot reach a running proxy"),
        (
            "x",
            f"admin_listen: 'x' has no port: {LISTEN_FORMS} (flag --admin-listen)",
        ),
        ("127.0.0.1:0", "admin_listen: is port 0, so this command cannot know the running proxy's port"),
    ],
)
def test_healthcheck_needs_a_known_admin_address(address: str, sentence: str, run) -> None:
    done = run("healthcheck", "--admin-listen", address)
    assert (done.returncode, done.stdout, done.stderr) == (USAGE_ERROR, "", f"nanonets-proxy: {sentence}\n")
