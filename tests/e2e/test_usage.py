"""The usage ledger of the real process: kill -9, restarts, and the commands that read it."""

import csv
import io
import json
import signal
import socket
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.commands.process import ANY_PORTS, END_S, environment, proxy_to, running, sandbox
from support.telemetry.usage_ledger import record, rows, send

Call = Callable[..., tuple[int, dict[str, str], Any]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "usage.db"


def statuses(path: Path) -> list[str]:
    try:
        return sorted(row["status"] for row in rows(path))
    except sqlite3.OperationalError:  # its tables are not there yet
        return []


def wait_for(path: Path, expected: list[str]) -> None:
    deadline = time.monotonic() + END_S
    while statuses(path) != expected:
        assert time.monotonic() < deadline, statuses(path)
        time.sleep(0.01)


@pytest.mark.usefixtures("one_day")
def test_a_kill_loses_nothing_that_was_written_and_the_budget_goes_on(path: Path, call: Call) -> None:
    flags = ["--ledger", str(path), "--daily-budget", "4"]
    with sandbox("--latency", "60", "--limit", "none") as slow, proxy_to(slow, *flags) as proxy:
        host, port = proxy.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as caller:
            caller.sendall(b"GET /api/v4/workflows HTTP/1.1\r\nHost: localhost\r\n\r\n")
            wait_for(path, ["unfinished"])
            proxy.end(signal.SIGKILL)
    with sandbox("--limit", "none") as upstream:
        with proxy_to(upstream, *flags) as proxy:
            assert call(f"{proxy.url}/api/v4/workflows")[0] == 200
            wait_for(path, ["2xx", "unfinished"])
            proxy.end(signal.SIGKILL)
        with proxy_to(upstream, *flags) as proxy:
            codes = [call(f"{proxy.url}/api/v4/workflows")[0] for _ in range(4)]
            assert proxy.end() == 0
    assert codes == [200, 200, 429, 429]
    assert statuses(path) == ["2xx", "2xx", "2xx", "unfinished"]


# --- the commands ------------------------------------------------------------------------------


def fill(path: Path) -> None:
    def use(ledger: Any) -> None:
        for caller, method, route, status, count in (
            ("10.0.0.7", "GET", "/api/v4/workflows", 200, 3),
            ("10.0.0.7", "DELETE", "/api/v4/workflows/{workflow}", 200, 1),
            ("\x9bsales", "POST", "/api/v4/workflows/{workflow}/documents", 429, 2),
        ):
            for _ in range(count):
                send(ledger, status, caller=caller, method=method, route=route, byte_counts=(1000, 10))

    record(path, use)


def test_usage_shows_a_table_with_its_total(path: Path, run) -> None:
    fill(path)
    done = run("usage", "--ledger", str(path))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert " UTC" in lines[0]
    assert [line.split() for line in lines[1:]] == [
        ["caller", "attempts", "requests", "request", "bytes", "response", "bytes", "pages"],
        ["10.0.0.7", "4", "4", "4,000", "40", "0"],
        ["\\x9bsales", "2", "2", "2,000", "20", "0"],
        ["total", "6", "6", "6,000", "60", "0"],
    ]


@pytest.mark.parametrize("caller", ["=cmd|'/C calc'!A0", "+1", "-1", "@sum(a1)", "\tx", "\uff1d1"])
def test_no_name_of_a_caller_is_a_formula_of_a_spreadsheet(caller: str, path: Path, run) -> None:
    record(path, lambda ledger: send(ledger, caller=caller))
    _, (name, *_) = csv.reader(io.StringIO(run("usage", "--ledger", str(path), "--csv").stdout))
    assert name == f"'{caller}"


def test_usage_as_csv_and_json(path: Path, run) -> None:
    fill(path)
    table = list(csv.reader(io.StringIO(run("usage", "--ledger", str(path), "--by", "status", "--csv").stdout)))
    assert table[0] == ["status", "attempts", "requests", "request_bytes", "response_bytes", "pages"]
    assert [row[:2] for row in table[1:]] == [["2xx", "4"], ["429", "2"]]
    document = json.loads(run("usage", "--ledger", str(path), "--by", "day", "--since", "1d", "--json").stdout)
    assert document["by"] == "day"
    assert document["total"]["attempts"] == sum(row["attempts"] for row in document["rows"]) == 6


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--by", "colour"], 2, "--by: 'colour' is not a view; the views are "),
        (["--since", "yesterday"], 2, "--since: 'yesterday' is not a time: write 7d, 36h, 2026-11-28 or "),
        (["--since", "now", "--until", "1d"], 2, "--since: is not before --until"),
        (["--csv", "--json"], 2, "--csv and --json exclude each other"),
        ([], 2, "ledger: is not set, so there is no usage to read; give --ledger PATH"),
        (["--ledger", "missing.db"], 1, "missing.db does not exist: no attempt has been recorded there"),
        (["--ledger", "text.db"], 1, "text.db is damaged, or no database"),
        (["--ledger", "empty.db"], 1, "empty.db is empty: no attempt has been recorded there"),
    ],
)
def test_a_mistake_is_one_sentence(arguments: list[str], code: int, sentence: str, tmp_path: Path, run) -> None:
    (tmp_path / "text.db").write_text("text" * 1000)
    (tmp_path / "empty.db").touch()
    done = run("usage", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(f"nanonets-proxy: {sentence}")
    assert done.stderr.count("\n") == 1


def test_an_empty_range_is_said_to_be_empty(path: Path, run) -> None:
    fill(path)
    done = run("usage", "--ledger", str(path), "--since", "2020-01-01", "--until", "2020-01-02T00:30+02:00")
    assert done.stdout == "No attempts from 2020-01-01 00:00 to 2020-01-01 23:00 UTC.\n"


def test_policy_test_lists_what_a_policy_would_have_rejected(path: Path, tmp_path: Path, run) -> None:
    fill(path)
    file = tmp_path / "new.toml"
    file.write_text(
        f'ledger = "{path}"\n'
        'policy = ["deny DELETE /**", "deny * /api/v4/workflows/42/documents"]\n'
        'daily_budget = ["10.0.0.7: 2"]\n'
    )
    done = run("policy", "test", str(file), "--since", "1d")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[0].endswith(
        "of 6 requests, 2 would be rejected, and up to 2 more might be: it depends on the ids in their paths"
    )
    assert [line.split() for line in lines[2:]] == [
        ["rejected", "1", "10.0.0.7", "DELETE", "/api/v4/workflows/{workflow}", "rule:", "deny", "DELETE", "/**"],
        ["rejected", "1", "10.0.0.7", "*", "*", "daily_budget"],
        [
            *("possible", "2", "\\x9bsales", "POST", "/api/v4/workflows/{workflow}/documents"),
            *["rule:", "deny", "*", "/api/v4/workflows/42/documents"],
        ],
    ]
    file.write_text(f'ledger = "{path}"\npolicy = ["deny PURGE /**"]\n')
    done = run("policy", "test", str(file), "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"requests": 6, "rejected": []})


def test_policy_test_names_a_missing_file(run) -> None:
    done = run("policy", "test", "missing.toml")
    assert (done.returncode, done.stderr) == (2, "nanonets-proxy: missing.toml: does not exist (FILE)\n")


def test_check_names_a_ledger_that_cannot_be_written(tmp_path: Path, run) -> None:
    def ledger_line(place: Path) -> str:
        done = run("check", "--sandbox", "--ledger", str(place))
        return next(line for line in done.stdout.splitlines() if " ledger " in line)

    assert ledger_line(tmp_path / "usage.db").startswith("ok ")
    assert ledger_line(tmp_path / "no" / "usage.db").endswith("cannot be used: no such file or directory")


def test_the_usage_of_a_sandbox_is_not_that_of_the_upstream(path: Path, call: Call, tmp_path: Path, run) -> None:
    flags = ["--ledger", str(path), "--daily-budget", "1"]
    with running(["serve", *ANY_PORTS, "--sandbox", *flags], environment(), is_forked=True) as proxy:
        proxy.wait_for("started")
        assert call(f"{proxy.url}/api/v4/workflows")[0] == 200
        assert proxy.end() == 0
    (tmp_path / "new.toml").write_text(f'ledger = "{path}"\npolicy = ["deny * /**"]\n')
    assert run("policy", "test", str(tmp_path / "new.toml")).returncode == 0
    with sandbox() as upstream, proxy_to(upstream, *flags) as proxy:
        assert call(f"{proxy.url}/api/v4/workflows")[0] == 200, "the sandbox's request is not in the day's budget"
        assert proxy.end() == 0
    assert sorted(row["environment"] for row in rows(path)) == ["", "(sandbox)"]
