"""A running proxy reads its settings again: by signal, by POST /reload and by the command."""

import json
import os
import signal
import socket
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.commands.proc import shown_to_its_user
from support.commands.process import ANY_PORTS, Running, environment, proxy_to, running, sandbox

Call = Callable[..., tuple[int, dict[str, str], Any]]
PATH = "/api/v4/workflows"
SECRET = "egress-password"


@contextmanager
def proxy_with(file: Path, text: str, **env: str) -> Iterator[Running]:
    """Runs the proxy in front of a sandbox, with these settings in the file."""
    file.write_text(text)
    with sandbox("--limit", "none") as upstream, proxy_to(upstream, "--config", str(file), **env) as proxy:
        yield proxy


def test_the_sandbox_is_reached_directly_also_after_a_reload(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    way = f'egress_proxy = "http://127.0.0.1:1"\nupstream_pins = ["sha256//{43 * "A"}="]\n'
    file.write_text(way)
    command = ["serve", "--sandbox", *ANY_PORTS, "--config", str(file)]
    with running(command, environment(), is_forked=True) as proxy:
        assert call(proxy.url + PATH)[0] == 200
        file.write_text(f'{way}via = "after"\n')
        assert settings_of(call, proxy)["changed"] == ["via"]
        status, fields, _ = call(proxy.url + PATH, Host="app.nanonets.com")
        assert (status, fields["via"]) == (200, "1.1 after")


def test_the_sandbox_sends_nothing_to_the_receivers_of_traces_and_metrics(call: Call) -> None:
    with socket.create_server(("127.0.0.1", 0)) as receiver:
        url = f"http://127.0.0.1:{receiver.getsockname()[1]}"
        flags = ["--otlp-endpoint", url, "--otlp-share", "1", "--otlp-metrics-endpoint", url, "--webhook-url", url]
        with running(["serve", "--sandbox", *ANY_PORTS, *flags], environment(), is_forked=True) as proxy:
            assert call(proxy.url + PATH)[0] == 200
            assert proxy.end() == 0, "what is left to send is sent before the end"
        receiver.setblocking(False)  # noqa: FBT003 - the name says what it is
        with pytest.raises(BlockingIOError):
            receiver.accept()


def settings_of(call: Call, proxy: Running, status: int = 200) -> dict[str, Any]:
    """Reloads, and returns what the response says about the settings."""
    found, _, body = call(f"{proxy.admin_url}/reload", "POST")
    assert found == status, body
    return {"reason": body.get("reason"), **body["settings"]}


def by_signal(_: Call, proxy: Running, _file: Path) -> None:
    proxy.process.send_signal(signal.SIGHUP)
    proxy.wait_for("settings_reloaded")


def by_request(call: Call, proxy: Running, _file: Path) -> None:
    assert settings_of(call, proxy)["changed"] == ["server_timing", "via"]


def by_command(_: Call, proxy: Running, file: Path) -> None:
    address = proxy.admin_url.removeprefix("http://")
    with running(
        ["reload", "--config", str(file), "--admin-listen", address], environment(), is_forked=True
    ) as command:
        assert command.process.wait(60) == 0
    assert command.stdout == b"reloaded: 2 settings have changed (server_timing, via)\n"


@pytest.mark.parametrize("reload", [by_signal, by_request, by_command])
def test_changed_settings_apply_from_the_next_request_on(
    call: Call, tmp_path: Path, reload: Callable[[Call, Running, Path], None]
) -> None:
    file = tmp_path / "settings.toml"
    with proxy_with(file, 'via = "before"\n') as proxy:
        _, fields, _ = call(proxy.url + PATH)
        assert (fields["via"], "server-timing" in fields) == ("1.1 before", True)
        file.write_text('via = "after"\nserver_timing = false\n')
        reload(call, proxy, file)
        _, fields, _ = call(proxy.url + PATH)
        assert (fields["via"], "server-timing" in fields) == ("1.1 after", False)
        event = proxy.wait_for("settings_reloaded")
        assert event["changed"] == {
            "via": {"old": "before", "new": "after"},
            "server_timing": {"old": True, "new": False},
        }
        assert event["needs_restart"] == {}


def test_a_reload_that_makes_the_log_quieter_or_louder_is_logged_itself(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    with proxy_with(file, "") as proxy:
        for old, new in (("info", "error"), ("error", "info")):
            file.write_text(f'log_level = "{new}"\n')
            assert settings_of(call, proxy)["changed"] == ["log_level"]
            event = proxy.wait_for_next("settings_reloaded")
            assert event["changed"] == {"log_level": {"old": old, "new": new}}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('via = "after"\nmax_wait = [\n', "{file}:3: Invalid value"),
        (
            'via = "after"\nmax_wait = "long"\n',
            "max_wait: 'long' is not a duration: write seconds, or 500ms, 30s, 5m, 1h ({file}:2)",
        ),
        ('via = "after"\nmax_weight = 3\n', "max_weight: unknown setting ({file}:2); did you mean max_wait?"),
        ('via = "after"\nca_file = "/none.pem"\n', "ca_file: /none.pem does not exist ({file}:2)"),
    ],
)
def test_unusable_settings_change_nothing_and_the_fault_is_named(
    call: Call, tmp_path: Path, text: str, reason: str
) -> None:
    file = tmp_path / "settings.toml"
    with proxy_with(file, 'via = "before"\n') as proxy:
        file.write_text(text)
        result = settings_of(call, proxy, 503)
        expected = reason.format(file=file)
        assert expected in result["reason"]
        assert (result["changed"], result["needs_restart"]) == ([], [])
        event = proxy.wait_for("settings_not_reloaded")
        assert (event["level"], expected in event["reason"]) == ("error", True)
        address = proxy.admin_url.removeprefix("http://")
        arguments = ["reload", "--admin-listen", address, "--config", str(file)]
        with running(arguments, environment(), is_forked=True) as command:
            assert command.process.wait(60) == 1
        assert command.stdout == b""
        assert expected in command.stderr.decode()
        assert call(proxy.url + PATH)[1]["via"] == "1.1 before"
        file.write_text('via = "after"\n')
        assert settings_of(call, proxy)["changed"] == ["via"]


def test_a_setting_that_needs_a_restart_is_named_and_stays(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    text = f'state_file = "{tmp_path}/state"\nmax_wait = 7\n'
    with proxy_with(file, "") as proxy:
        file.write_text(f'{text}[environments.other]\nlisten = "localhost:1"\n')
        assert settings_of(call, proxy)["needs_restart"] == ["environments"]
        file.write_text(text)
        result = settings_of(call, proxy)
        assert (result["changed"], result["needs_restart"]) == (["max_wait"], ["state_file"])
        event = proxy.wait_for("restart_needed", settings=["state_file"])
        assert event["advice"] == "restart the proxy to apply state_file"  # the status shows only the advice
        assert event["level"] == "warning"
        address = proxy.admin_url.removeprefix("http://")
        with running(["reload", "--admin-listen", address], environment(), is_forked=True) as command:
            assert command.process.wait(60) == 0
        assert command.stdout == b"reloaded: no setting has changed; state_file applies after a restart\n"
        assert not (tmp_path / "state").exists()


def test_flags_and_variables_of_the_start_stay_in_force_and_secrets_stay_out_of_the_log(
    call: Call, tmp_path: Path
) -> None:
    file = tmp_path / "settings.toml"
    variables = {
        "NANONETS_PROXY_VIA": "variable",
        "NANONETS_PROXY_EGRESS_PROXY": f"http://user:{SECRET}@127.0.0.1:1",
        "VAULT_TOKEN": "vault-token",
    }
    file.touch()
    arguments = ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--config", str(file)]
    with running(arguments, environment(NANONETS_API_KEY="the-key", **variables), is_forked=True) as proxy:
        proxy.wait_for("started")
        file.write_text('via = "file"\nmax_wait = 7\n')
        assert settings_of(call, proxy) == {"reason": None, "changed": ["max_wait"], "needs_restart": []}
        assert proxy.end() == 0
    for secret in (SECRET, "vault-token", "the-key"):
        assert secret.encode() not in proxy.stdout + proxy.stderr


def test_reloads_under_load_fail_no_request(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    text = "max_wait={0}\npool_size={1}\nkeep_alive={2}\nconnect_timeout={3}\nscopes=['* /api/v4/** -> s{1}']\n"
    with proxy_with(file, "") as proxy:
        ends = threading.Event()
        statuses: list[int] = []

        def send_requests() -> None:
            while not ends.is_set():
                statuses.append(call(proxy.url + PATH)[0])

        with ThreadPoolExecutor(12) as pool:
            callers = [pool.submit(send_requests) for _ in range(4)]
            try:
                results = []
                for first in (0, 8):  # more than eight may not wait at a time
                    reloads = []
                    for number in range(first, first + 8):
                        file.write_text(text.format(30 + number, 1 + number % 4, 60 + number, 5 + number))
                        reloads.append(pool.submit(settings_of, call, proxy))
                    results += [reload.result() for reload in reloads]
            finally:
                ends.set()
            for caller in callers:
                caller.result()
        assert all(result["reason"] is None for result in results)
        assert set(statuses) == {200}
        assert settings_of(call, proxy)["changed"] == []


# --- the process that reads -----------------------------------------------------------------------


def _children(pid: int) -> list[int]:
    """Returns the children of all threads."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for children in lists for child in children.read_text().split()]


@pytest.mark.skipif(sys.platform != "linux", reason="needs proc(5)")
def test_the_reading_process_is_hardened_keeps_no_secret_in_view_and_leaves_no_zombie(
    call: Call, tmp_path: Path
) -> None:
    file = tmp_path / "settings.toml"
    with (
        proxy_with(file, "", VAULT_TOKEN="vault-token") as proxy,
        ThreadPoolExecutor(1) as pool,
    ):
        file.unlink()
        os.mkfifo(file)
        reload = pool.submit(settings_of, call, proxy)
        with file.open("w") as settings:  # returns when the child opens the file
            (child,) = _children(proxy.process.pid)
            limits = Path(f"/proc/{child}/limits").read_text()
            (core,) = [line for line in limits.splitlines() if "core" in line]
            assert core.split()[4:6] == ["0", "0"]
            assert Path(f"/proc/{child}/mem").stat().st_uid == 0, "proc(5): root owns what is not dumpable"
            shown = shown_to_its_user(child)
            assert b"vault-token" not in shown
            assert b"sandbox-test-key" not in shown
            assert Path(f"/proc/{child}/oom_score_adj").read_text() == "1000\n"
            assert call(proxy.url + PATH)[0] == 200, "requests are served meanwhile"
            settings.write("max_wait = 7\n")
        assert reload.result()["changed"] == ["max_wait"]
        assert _children(proxy.process.pid) == []


@pytest.mark.skipif(sys.platform != "linux", reason="needs proc(5)")
def test_a_reading_process_that_dies_changes_nothing(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    with proxy_with(file, "") as proxy, ThreadPoolExecutor(1) as pool:
        file.unlink()
        os.mkfifo(file)
        reload = pool.submit(settings_of, call, proxy, 503)
        with file.open("w"):
            (child,) = _children(proxy.process.pid)
            os.kill(child, signal.SIGKILL)
            assert "the process that read them ended with code -9" in reload.result()["reason"]
        assert _children(proxy.process.pid) == []


def test_a_broken_file_does_not_keep_the_keys_from_being_read(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    with proxy_with(file, "") as proxy:
        file.write_text("max_wait = [")
        request = urllib.request.Request(f"{proxy.admin_url}/reload", b"", {"X-Requested-With": "test"})
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request)
        assert json.load(caught.value)["status"] == "not reloaded"
        proxy.wait_for("reloaded")
