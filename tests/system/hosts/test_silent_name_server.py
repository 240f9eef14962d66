"""A name server that never answers, which the process must not wait for at its end."""

import socket
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.commands.process import ANY_PORTS, environment, running

pytestmark = pytest.mark.system


@pytest.fixture
def silent() -> Iterator[str]:
    """A name server on loopback that takes questions and does not answer."""
    address = "127.0.0.9"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((address, 53))
        yield address


UPSTREAM = {"NANONETS_PROXY_UPSTREAM": "https://nanonets.example"}
COORDINATION = {"NANONETS_PROXY_COORDINATION": "redis://redis.example:6379"}


@pytest.mark.parametrize("variables", [UPSTREAM, COORDINATION], ids=["upstream", "coordination"])
def test_sigterm_ends_the_process_within_seconds(silent: str, tmp_path: Path, variables: dict[str, str]) -> None:
    resolver = tmp_path / "resolv.conf"
    resolver.write_text(f"nameserver {silent}\noptions timeout:30 attempts:1\n")
    inside = ["unshare", "--mount", "sh", "-c", f'mount --bind {resolver} /etc/resolv.conf && exec "$@"', "sh"]
    env = environment(NANONETS_API_KEY="the-key-of-the-test", **variables)
    with running(["serve", *ANY_PORTS], env, within=inside) as proxy:
        proxy.wait_for("started")
        with pytest.raises(TimeoutError):
            urllib.request.urlopen(f"{proxy.url}/api/v4/workflows", timeout=2)
        started = time.monotonic()
        assert proxy.end() == 0
        assert time.monotonic() - started < 25, "the resolver gives up after 30 s"
    assert proxy.events[-1]["event"] == "stopped"
