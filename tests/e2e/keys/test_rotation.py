"""Key rotation in the real process, against the real sandbox."""

import json
import signal
import stat
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.commands.process import ANY_PORTS, END_S, Running, environment, running, sandbox

Call = Callable[..., tuple[int, dict[str, str], Any]]
PATH = "/api/v4/workflows"


def accept(call: Call, upstream: str, *keys: str, grace_s: float = 0.0) -> None:
    assert call(f"{upstream}/sandbox/keys", "POST", json.dumps({"keys": keys, "grace_s": grace_s}))[0] == 204


@contextmanager
def proxy_with(upstream: str, *arguments: str, **env: str) -> Iterator[Running]:
    command = ["serve", *ANY_PORTS, "--upstream", upstream, *arguments]
    with running(command, environment(**env), is_forked=True) as proxy:
        proxy.wait_for("started")
        yield proxy


@contextmanager
def proxy_with_file(upstream: str, key_file: Path, *arguments: str) -> Iterator[Running]:
    with proxy_with(upstream, "--api-key-file", str(key_file), *arguments) as proxy:
        yield proxy


@contextmanager
def in_background(function: Callable[[], Any]) -> Iterator["Future[Any]"]:
    """Runs `function` in a thread, and waits for its end at the end of the block."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(function)


def key_state(call: Call, proxy: Running) -> dict[str, Any]:
    key: dict[str, Any] = call(f"{proxy.admin_url}/readyz")[2]["key"]
    return key


def has_metric(call: Call, proxy: Running, line: str) -> bool:
    return f"\n{line}\n".encode() in call(f"{proxy.admin_url}/metrics")[2]


# --- how a key file changes -----------------------------------------------------------------------


def _write(path: Path, key: str) -> None:
    path.write_text(f"{key}\n")


def _rename_over(path: Path, key: str) -> None:
    """Replaces the file as editors do."""
    new = path.with_suffix(".new")
    new.write_text(f"{key}\n")
    new.rename(path)


def _swap_data_link(path: Path, key: str) -> None:
    """Replaces the link `..data`, as Kubernetes changes a mounted secret. The file's own link stays."""
    directory = path.parent
    generation = directory / f"..{time.monotonic_ns()}"
    generation.mkdir()
    (generation / path.name).write_text(f"{key}\n")
    link = directory / "..data_tmp"
    link.symlink_to(generation.name)
    link.rename(directory / "..data")
    if not path.is_symlink():
        path.symlink_to(f"..data/{path.name}")


@pytest.mark.parametrize("change", [_write, _rename_over, _swap_data_link])
def test_the_next_request_uses_the_key_that_changed_in_its_file(
    call: Call, tmp_path: Path, change: Callable[[Path, str], None]
) -> None:
    key_file = tmp_path / "key"
    change(key_file, "first-key")
    with sandbox(key="first-key") as upstream, proxy_with_file(upstream, key_file) as proxy:
        assert call(proxy.url + PATH)[0] == 200
        proxy.wait_for_next("key_candidate")
        proxy.wait_for_next("key_active")
        for number in range(3):
            accept(call, upstream, "first-key", f"new-key-{number}")
            change(key_file, f"new-key-{number}")
            proxy.wait_for_next("key_candidate")
            assert call(proxy.url + PATH)[0] == 200
            proxy.wait_for_next("key_active")
        assert has_metric(call, proxy, "nanonets_proxy_key_rotations_total 3.0")
        assert proxy.end() == 0
    assert not any(event["event"] == "key_source_failed" for event in proxy.all_events())
    assert {event["attempts"] for event in proxy.requests()} == {1}


def test_the_key_file_is_watched_again_after_its_directory_returns(call: Call, tmp_path: Path) -> None:
    directory = tmp_path / "mount"
    directory.mkdir()
    _write(directory / "key", "first-key")
    with sandbox(key="first-key") as upstream, proxy_with_file(upstream, directory / "key") as proxy:
        assert call(proxy.url + PATH)[0] == 200
        directory.rename(tmp_path / "away")
        assert "does not exist" in proxy.wait_for("key_source_failed")["reason"]
        assert call(proxy.url + PATH)[0] == 200, "a missing source never drops a working key"
        assert has_metric(call, proxy, "nanonets_proxy_key_source_failing 1.0")
        directory.mkdir()
        accept(call, upstream, "second-key")
        _write(directory / "key", "second-key")
        proxy.wait_for("key_source_works_again")
        assert call(proxy.url + PATH)[0] == 200
        assert "source_fault" not in key_state(call, proxy)


# --- keys that the upstream rejects ---------------------------------------------------------------


def test_a_wrong_new_key_fails_no_request_and_is_logged_as_a_warning(call: Call, tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    _write(key_file, "good-key")
    with sandbox(key="good-key") as upstream, proxy_with_file(upstream, key_file) as proxy:
        assert call(proxy.url + PATH)[0] == 200
        proxy.wait_for_next("key_candidate")
        _write(key_file, "wrong-key")
        proxy.wait_for_next("key_candidate")
        assert [call(proxy.url + PATH)[0] for _ in range(5)] == [200] * 5
        assert proxy.wait_for("key_candidate_rejected")["level"] == "warning"
        assert has_metric(call, proxy, "nanonets_proxy_key_candidate_rejected 1.0")
        assert has_metric(call, proxy, 'nanonets_proxy_key_rejections_total{state="candidate"} 1.0')
        shown = key_state(call, proxy)
        assert [key["state"] for key in shown["keys"]] == ["active", "rejected"]
        assert "stays in use" in shown["warnings"][0]
        assert {len(key["fingerprint"]) for key in shown["keys"]} == {8}
        _write(key_file, "good-key")
        deadline_s = time.monotonic() + END_S
        while "warnings" in key_state(call, proxy):
            assert time.monotonic() < deadline_s
        assert has_metric(call, proxy, "nanonets_proxy_key_candidate_rejected 0.0")


def test_a_probe_tests_a_new_key_if_key_probe_is_set(call: Call, tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    _write(key_file, "first-key")
    with (
        sandbox(key="first-key") as upstream,
        proxy_with_file(upstream, key_file, "--key-probe", "/api/v4/workflow_types") as proxy,
    ):
        proxy.wait_for_next("key_active")
        _write(key_file, "wrong-key")
        proxy.wait_for("key_candidate_rejected")
        accept(call, upstream, "second-key")
        _write(key_file, "second-key")
        proxy.wait_for_next("key_active")
        assert call(proxy.url + PATH)[0] == 200
        assert proxy.end() == 0
    assert [event["attempts"] for event in proxy.requests()] == [1]


def test_an_inconclusive_probe_is_logged(call: Call, tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    _write(key_file, "first-key")
    with (
        sandbox(key="first-key") as upstream,
        proxy_with_file(upstream, key_file, "--key-probe", "/api/v4/no-such-path") as proxy,
    ):
        proxy.wait_for("key_probe_undecided")
        assert call(proxy.url + PATH)[0] == 200
        proxy.wait_for("key_active")


def test_a_revoked_key_holds_requests_until_the_new_key_arrives(call: Call, tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    _write(key_file, "old-key")
    with sandbox(key="old-key") as upstream, proxy_with_file(upstream, key_file, "--key-gap", "1h") as proxy:
        assert call(proxy.url + PATH)[0] == 200
        accept(call, upstream, "new-key")
        with in_background(lambda: call(proxy.url + PATH, "POST", b'{"description": "d"}')) as held:
            proxy.wait_for("key_gap")
            _write(key_file, "new-key")
        assert held.result()[0] in (200, 201)


def test_after_key_gap_callers_get_the_upstreams_401_at_once(call: Call, tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    _write(key_file, "old-key")
    with sandbox(key="another-key") as upstream, proxy_with_file(upstream, key_file, "--key-gap", "1s") as proxy:
        accept(call, upstream, "old-key")
        assert call(proxy.url + PATH)[0] == 200
        accept(call, upstream, "another-key")
        with in_background(lambda: call(proxy.url + "/api/v4/workflow_types")) as other:
            status, _, body = call(proxy.url + PATH)
            assert (status, body["message"]) == (401, "Invalid API key")
        assert other.result()[0] == 401
        assert call(proxy.url + PATH)[0] == 401
        assert key_state(call, proxy)["state"] == "spent"
        assert has_metric(call, proxy, "nanonets_proxy_key_accepted 0.0")
        _write(key_file, "another-key")
        proxy.wait_for_next("key_candidate")
        proxy.wait_for_next("key_candidate")
        assert call(proxy.url + PATH)[0] == 200
        assert proxy.end() == 0
    _, *held, last, _ = proxy.requests()
    assert last["wait_s"] < 0.9 <= max(request["wait_s"] for request in held)
    assert last["attempts"] == 1
    assert proxy.wait_for("key_gap_ended")["state"] == "spent"


def test_a_key_that_is_revoked_while_all_callers_use_one_path_is_rejected_by_a_probe(
    call: Call, tmp_path: Path
) -> None:
    key_file = tmp_path / "key"
    _write(key_file, "old-key")
    with sandbox(key="old-key") as upstream, proxy_with_file(upstream, key_file, "--key-gap", "3s") as proxy:
        assert call(f"{proxy.url}/api/v4/workflow_types")[0] == 200
        accept(call, upstream, "another-key")
        assert call(f"{proxy.url}/api/v4/workflow_types")[0] == 401
        proxy.wait_for("key_rejected")
        assert [key["state"] for key in key_state(call, proxy)["keys"]] == ["rejected"]
        assert has_metric(call, proxy, "nanonets_proxy_key_accepted 0.0")


def test_a_request_with_prefer_wait_0_is_not_held(call: Call, tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    _write(key_file, "old-key")
    with sandbox(key="another-key") as upstream, proxy_with_file(upstream, key_file, "--key-gap", "60s") as proxy:
        assert call(proxy.url + PATH, Prefer="wait=0")[0] == 401


def test_a_shutdown_rejects_held_requests(call: Call, tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    _write(key_file, "old-key")
    with sandbox(key="old-key") as upstream, proxy_with_file(upstream, key_file, "--key-gap", "60s") as proxy:
        assert call(proxy.url + PATH)[0] == 200
        accept(call, upstream, "another-key")
        with in_background(lambda: call(proxy.url + PATH)) as held:
            proxy.wait_for("key_gap")
            assert proxy.end() == 0
        assert held.result()[0] == 503


# --- reload ---------------------------------------------------------------------------------------


def _by_signal(_: Call, proxy: Running) -> None:
    proxy.process.send_signal(signal.SIGHUP)


def _by_admin(call: Call, proxy: Running) -> None:
    status, _, body = call(f"{proxy.admin_url}/reload", "POST")
    assert (status, body["status"]) == (200, "reloaded")


def _by_command(_: Call, proxy: Running) -> None:
    address = proxy.admin_url.removeprefix("http://")
    with running(["reload", "--admin-listen", address], environment(), is_forked=True) as command:
        assert command.process.wait(60) == 0


@pytest.mark.parametrize("reload", [_by_signal, _by_admin, _by_command])
def test_a_reload_makes_a_rejected_key_usable_again(
    call: Call, tmp_path: Path, reload: Callable[[Call, Running], None]
) -> None:
    key_file = tmp_path / "key"
    _write(key_file, "first-key")
    with sandbox(key="first-key") as upstream, proxy_with_file(upstream, key_file) as proxy:
        assert call(proxy.url + PATH)[0] == 200
        proxy.wait_for_next("key_candidate")
        _write(key_file, "not-yet-known")
        proxy.wait_for_next("key_candidate")
        assert call(proxy.url + PATH)[0] == 200
        proxy.wait_for("key_candidate_rejected")
        accept(call, upstream, "not-yet-known")
        reload(call, proxy)
        assert proxy.wait_for("reloaded")["state"] == "candidate"
        assert call(proxy.url + PATH)[0] == 200
        assert [key["state"] for key in key_state(call, proxy)["keys"]] == ["previous", "active"]


def test_a_failed_reload_reports_the_reason_and_keeps_the_key(call: Call, tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    _write(key_file, "the-key")
    with sandbox(key="the-key") as upstream, proxy_with_file(upstream, key_file) as proxy:
        key_file.unlink()
        status, _, body = call(f"{proxy.admin_url}/reload", "POST")
        assert (status, body["status"]) == (503, "not reloaded")
        assert str(key_file) in body["reason"]
        proxy.process.send_signal(signal.SIGHUP)
        assert str(key_file) in proxy.wait_for("reload_failed")["reason"]
        assert call(proxy.url + PATH)[0] == 200


def test_a_web_page_of_another_site_cannot_reload(call: Call, tmp_path: Path) -> None:
    _write(tmp_path / "key", "the-key")
    with sandbox(key="the-key") as upstream, proxy_with_file(upstream, tmp_path / "key") as proxy:
        assert call(f"{proxy.admin_url}/reload", "POST", Origin="https://evil.example")[0] == 403


# --- other sources --------------------------------------------------------------------------------


def _program(path: Path, body: str) -> Path:
    path.write_text(f"#!{sys.executable}\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_a_key_command_runs_at_every_refresh(call: Call, tmp_path: Path) -> None:
    _write(tmp_path / "store", "first-key")
    program = _program(tmp_path / "helper", "import sys; print(open(sys.argv[1]).read())")
    command = f"{program} '{tmp_path / 'store'}'"
    with (
        sandbox(key="first-key") as upstream,
        proxy_with(upstream, "--api-key-command", command, "--key-refresh", "200ms") as proxy,
    ):
        assert call(proxy.url + PATH)[0] == 200
        accept(call, upstream, "second-key", grace_s=60.0)
        _write(tmp_path / "store", "second-key")
        proxy.wait_for_next("key_candidate")
        proxy.wait_for_next("key_candidate")
        assert call(proxy.url + PATH)[0] == 200
        (tmp_path / "store").unlink()
        assert "exited with code 1" in proxy.wait_for("key_source_failed")["reason"]
        assert call(proxy.url + PATH)[0] == 200
        assert key_state(call, proxy)["source"] == "command:helper"


def test_a_key_in_the_environment_is_reported_as_old_at_key_max_age(call: Call) -> None:
    with (
        sandbox(key="the-key") as upstream,
        proxy_with(upstream, "--key-max-age", "1ms", NANONETS_API_KEY="the-key") as proxy,
    ):
        event = proxy.wait_for("key_old")
        assert event["key"] == "env:NANONETS_API_KEY"
        alerts = call(f"{proxy.admin_url}/readyz")[2]["alerts"]
        assert [alert["sentence"] for alert in alerts if alert["event"] == "key_old"] == [event["sentence"]]
        assert "rotate it" in key_state(call, proxy)["warnings"][0]
