"""The state file across restarts of the real process, and static limits."""

import json
import stat
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from support.commands.process import Running, proxy_to, sandbox

PATH = "/api/v4/workflows"


def get(proxy: Running, **headers: str) -> tuple[int, float]:
    """Returns the status and Retry-After."""
    request = urllib.request.Request(
        proxy.url + PATH, headers={name.replace("_", "-"): v for name, v in headers.items()}
    )
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, 0.0
    except urllib.error.HTTPError as error:
        return error.code, float(error.headers["Retry-After"])


def test_a_learned_limit_survives_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    with sandbox("--limit", "2/3s", "--limit-kind", "sliding") as upstream:
        with proxy_to(upstream, "--state-file", str(path)) as proxy:
            assert [get(proxy)[0] for _ in range(5)] == [200] * 5
            assert proxy.end() == 0
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        (scope,) = json.loads(path.read_text())["scopes"]
        assert (scope["scope"], scope["count"]) == ("account", 2)
        with proxy_to(upstream, "--state-file", str(path)) as proxy:
            assert proxy.wait_for("state_restored")["scopes"] == 1
            assert [get(proxy)[0] for _ in range(2)] == [200] * 2
            proxy.end()
            # One request may have been a limit probe.
            assert sum(event["attempts"] for event in proxy.requests()) <= 3


def test_a_closed_scope_stays_closed_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    with sandbox("--limit", "1/300s", "--limit-kind", "sliding") as upstream:
        assert refusals(upstream) == 0
        with proxy_to(upstream, "--state-file", str(path)) as proxy:
            assert get(proxy)[0] == 200
            assert get(proxy, Prefer="wait=5")[0] == 429
            assert proxy.end() == 0
        assert json.loads(path.read_text())["scopes"][0]["count"] is None
        with proxy_to(upstream, "--state-file", str(path)) as proxy:
            status, retry_after_s = get(proxy, Prefer="wait=5")
            assert status == 429
            assert 200 < retry_after_s <= 300
        assert refusals(upstream) == 1


def refusals(upstream: str) -> int:
    with urllib.request.urlopen(f"{upstream}/sandbox/stats") as response:
        refused: int = json.load(response)["refused"]
        return refused


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[" * 100_000, b'{"version": 1, "upstream": "https://x"}', b"\xff\x00"]
)
def test_a_corrupt_or_foreign_file_is_put_aside(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(content)
    with sandbox("--limit", "none") as upstream, proxy_to(upstream, "--state-file", str(path)) as proxy:
        proxy.wait_for("state_file_put_aside", path=str(path))
        assert get(proxy)[0] == 200
        assert proxy.end() == 0
    assert path.with_name("state.json.bad").read_bytes() == content
    assert json.loads(path.read_text())["version"] == 1


def test_a_state_file_that_cannot_be_written_does_not_stop_the_proxy(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "state.json"
    with sandbox("--limit", "none") as upstream, proxy_to(upstream, "--state-file", str(path)) as proxy:
        proxy.wait_for("state_file_not_written", path=str(path))
        assert get(proxy)[0] == 200
        assert proxy.end() == 0


def test_a_static_limit_holds_and_the_retry_after_is_its_forecast() -> None:
    with (
        sandbox("--limit", "none") as upstream,
        proxy_to(upstream, "--limits", "account 2/minute") as proxy,
    ):
        assert [get(proxy)[0] for _ in range(2)] == [200, 200]
        status, retry_after_s = get(proxy, Prefer="wait=5", Priority="u=1")
        assert status == 429
        assert 50 <= retry_after_s <= 61
        assert get(proxy, Prefer="wait=5, nonsense", Priority="nonsense")[0] == 429
