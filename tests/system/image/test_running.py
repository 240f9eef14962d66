"""The container image at work: its start, service and end under a strict policy."""

import base64
import json
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from system.podman import (
    ENVIRON_UNREADABLE,
    ON_HOST,
    READ_ENVIRON,
    call,
    podman,
    run,
    run_once,
    sandbox,
    started,
    wait_for,
)

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("image")]

API_KEY = "sys-3f1c9a7e5b2d4860"


# --- start -----------------------------------------------------------------------------


def test_with_defaults_it_becomes_healthy_without_a_shell_and_capabilities() -> None:
    no_shell = "--volume=/dev/null:/bin/sh:ro"
    with started("serve", "--sandbox", options=("--network=none", no_shell)) as container:
        assert container.event("started")["listen"] in (["0.0.0.0:8080"], ["0.0.0.0:8080", "[::]:8080"])
        assert "curl http://localhost:8080/api/v4/workflows\n" in container.logs()
        wait_for("a passing health check", container.is_healthy)
        assert container.inspect()["State"]["Health"]["Status"] == "healthy"
        status = dict(
            line.split(":\t", 1)
            for line in container.python("print(open('/proc/1/status').read())").splitlines()
            if line
        )
        assert status["Uid"].split() == ["10001"] * 4
        assert status["Gid"].split() == ["10001"] * 4
        assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
        assert status["NoNewPrivs"] == "1"


def test_the_health_check_fails_if_no_proxy_responds() -> None:
    with started("sandbox", options=("--network=none",)) as container:
        container.event("sandbox_started")
        assert not container.is_healthy()


@pytest.mark.parametrize(
    ("options", "arguments", "sentence"),
    [
        ((), (), "no API key was given: "),
        (
            ("--env=NANONETS_PROXY_LISTN=x",),
            ("serve",),
            "NANONETS_PROXY_LISTN: unknown setting (environment); did you",
        ),
        ((), ("serve", "--sandbox", "--spool-dir=/opt"), "spool_dir: /opt cannot hold request bodies: "),
        (("--env=NANONETS_API_KEY=a:b",), (), "the API key of env:NANONETS_API_KEY has a colon in it"),
    ],
)
def test_an_invalid_setting_ends_it_with_one_sentence_and_exit_code_2(
    options: tuple[str, ...], arguments: tuple[str, ...], sentence: str
) -> None:
    done = run_once(*arguments, options=options)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"nanonets-proxy: {sentence}")
    assert done.stderr.count("\n") == 1


# --- service -----------------------------------------------------------------------------


def test_it_serves_the_sandbox_to_callers_without_a_key() -> None:
    with started("serve", "--sandbox", options=ON_HOST) as container:
        address = container.event("started")["listen"][0]
        status, body = call(address, "/api/v4/workflows")
    assert status == 200
    assert json.loads(body) == {"workflows": []}


def test_a_key_in_a_secret_file_is_used_and_not_revealed(tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text(f"{API_KEY}\n")
    key_file.chmod(0o444)
    secret = f"--volume={key_file}:/run/secrets/nanonets_api_key:ro"
    with (
        sandbox(API_KEY) as upstream,
        started(options=(*ON_HOST, secret, f"--env=NANONETS_PROXY_UPSTREAM={upstream}")) as container,
    ):
        event = container.event("started")
        assert event["key"] == "file:/run/secrets/nanonets_api_key"
        assert call(event["listen"][0], f"/api/v4/workflows?api_key={API_KEY}")[0] == 200
        container.event("request")
        assert container.python(READ_ENVIRON) == ENVIRON_UNREADABLE
        shown = [
            json.dumps(container.inspect()),
            container.logs(),
            container.python("print(open('/proc/1/cmdline').read())"),
            call(event["admin_listen"][0], "/metrics")[1],
        ]
    forms = (API_KEY, base64.b64encode(f"{API_KEY}:".encode()).decode().rstrip("="))
    assert all(shown)
    assert not [form for form in forms for text in shown if form in text]


@pytest.fixture(name="volume")
def _volume() -> Iterator[str]:
    name = f"nanonets-proxy-test-{uuid.uuid4().hex[:8]}"
    yield name
    run("podman", "volume", "rm", "--force", name)


def test_a_new_volume_keeps_usage_and_limits_of_a_read_only_container(volume: str) -> None:
    state = "/var/lib/nanonets-proxy"
    options = (
        *ON_HOST,
        f"--volume={volume}:{state}",
        f"--env=NANONETS_PROXY_LEDGER={state}/usage.db",
        f"--env=NANONETS_PROXY_STATE_FILE={state}/limits",
        f"--env=NANONETS_API_KEY={API_KEY}",
    )
    usage = ("nanonets-proxy", "usage", "--json")
    with sandbox(API_KEY) as upstream:
        with started(options=(*options, f"--env=NANONETS_PROXY_UPSTREAM={upstream}")) as first:
            assert call(first.event("started")["listen"][0], "/api/v4/workflows")[0] == 200
            first.signal("TERM")
            assert first.exit_code() == 0
        with started(options=(*options, f"--env=NANONETS_PROXY_UPSTREAM={upstream}")) as second:
            second.event("started")
            assert json.loads(podman("exec", second.name, *usage))["total"]["attempts"] == 1
            files = second.python(f"import os; print(sorted(os.listdir({state!r})))")
    assert "limits" in files


def test_without_a_volume_a_ledger_stops_and_requests_are_served() -> None:
    ledger = "--env=NANONETS_PROXY_LEDGER=/var/lib/nanonets-proxy/usage.db"
    with started("serve", "--sandbox", options=(*ON_HOST, ledger)) as container:
        address = container.event("started")["listen"][0]
        assert call(address, "/api/v4/workflows")[0] == 200
        container.event("ledger_stopped")


# --- end -------------------------------------------------------------------------------


def _started_with_upstream(upstream: str) -> Any:
    return started(
        options=(*ON_HOST, f"--env=NANONETS_PROXY_UPSTREAM={upstream}", f"--env=NANONETS_API_KEY={API_KEY}")
    )


def _in_background(address: str, responses: list[int]) -> threading.Thread:
    """Sends a GET in a thread, which appends the status to `responses`; 0 if the connection breaks."""

    def work() -> None:
        try:
            responses.append(call(address, "/api/v4/workflows")[0])
        except OSError:
            responses.append(0)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def _wait_until_in_flight(admin: str) -> None:
    wait_for("a request in flight", lambda: "\nnanonets_proxy_in_flight 1.0\n" in call(admin, "/metrics")[1])


def test_after_sigterm_it_completes_the_request_in_flight_and_exits_with_0() -> None:
    responses: list[int] = []
    with sandbox(API_KEY, "--latency=2s") as upstream, _started_with_upstream(upstream) as container:
        event = container.event("started")
        caller = _in_background(event["listen"][0], responses)
        _wait_until_in_flight(event["admin_listen"][0])
        container.signal("TERM")
        assert container.exit_code() == 0
        caller.join()
        assert container.event("stopped")["cut_off"] == 0
    assert responses == [200]


def test_a_sigterm_right_after_the_start_ends_it() -> None:
    with started("serve", "--sandbox", options=("--network=none",)) as container:
        container.signal("TERM")
        assert container.exit_code() in (0, 128 + 15)


def test_a_second_sigterm_ends_it_immediately() -> None:
    responses: list[int] = []
    with sandbox(API_KEY, "--latency=1h") as upstream, _started_with_upstream(upstream) as container:
        event = container.event("started")
        caller = _in_background(event["listen"][0], responses)
        _wait_until_in_flight(event["admin_listen"][0])
        container.signal("TERM")
        container.event("draining")
        container.signal("TERM")
        assert container.exit_code() == 128 + 15
        caller.join()
    assert responses == [0]
