"""Fleets of real proxies over a real Redis, and callers that never pause."""

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Self

from fleet.redis_server import RedisServer
from support.commands.process import END_S, Running, proxy_to, sandbox

PATH = "/api/v4/workflows"
PASSWORD = "the-redis-password"
RIGHTS = (
    "~nanonets-proxy:* &nanonets-proxy:* +eval +evalsha +script|load +publish +subscribe +unsubscribe +get +set "
    "+del +pexpire +pttl +hmget +hset +time +ping +select"
)
"""As docs/fleet.md lists them."""


def make_user(redis: RedisServer, *rights: str) -> None:
    """Makes the user `proxy`, as docs/fleet.md says. Redis 6.0 has no rights for channels."""
    if b"redis_version:6.0" in redis.ask("INFO", "server"):
        rights = tuple(right for right in rights if not right.startswith("&"))
    redis.ask("ACL", "SETUSER", "proxy", "on", f">{PASSWORD}", *rights)


@contextmanager
def fleet(
    redis: RedisServer | str, replicas: int, *arguments: str, limit: str = "40/4s"
) -> Iterator[list[Running]]:
    """Runs replicas before one sandbox, whose limit is a sliding window. `redis` may be a URL."""
    with ExitStack() as stack:
        upstream = stack.enter_context(sandbox("--limit", limit, "--limit-kind", "sliding"))
        url = redis if isinstance(redis, str) else redis.url
        extra = ["--coordination", url, *arguments]
        yield [stack.enter_context(proxy_to(upstream, *extra)) for _ in range(replicas)]


class Callers:
    """Threads that call without a pause, each with a name of its own."""

    def __init__(self, proxies: list[Running], each: int) -> None:
        self.statuses: list[int] = []
        self._ends = threading.Event()
        self._threads = [
            threading.Thread(target=self._call, args=(proxy.url + PATH, f"r{number}c{caller}"))
            for number, proxy in enumerate(proxies)
            for caller in range(each)
        ]

    def _call(self, url: str, name: str) -> None:
        while not self._ends.is_set():
            request = urllib.request.Request(url, headers={"X-Caller": name})
            try:
                with urllib.request.urlopen(request, timeout=60) as response:
                    response.read()
                    self.statuses.append(response.status)
            except urllib.error.HTTPError as error:
                self.statuses.append(error.code)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()


def ready(proxy: Running) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"{proxy.admin_url}/readyz", timeout=60) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def gauge(proxy: Running, name: str) -> float:
    with urllib.request.urlopen(f"{proxy.admin_url}/metrics", timeout=60) as response:
        text = response.read().decode()
    return float(next(line.split()[1] for line in text.splitlines() if line.startswith(f"{name} ")))


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + END_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def coordinated(proxies: list[Running]) -> bool:
    return all(gauge(proxy, "nanonets_proxy_fleet_coordinated") == 1 for proxy in proxies)


def refusals(upstream: str) -> int:
    """Returns how many 429s a sandbox has sent."""
    with urllib.request.urlopen(f"{upstream}/sandbox/stats", timeout=60) as response:
        refused: int = json.load(response)["refused"]
    return refused
