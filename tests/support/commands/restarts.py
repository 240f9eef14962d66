"""Restarts of a running proxy: the processes that replace it share its log."""

import contextlib
import http.client
import json
import os
import signal
from collections.abc import Iterator
from typing import Any

from support.commands.process import END_S, Running, proxy_to


@contextlib.contextmanager
def ending_successors(proxy: Running) -> Iterator[None]:
    """Ends the processes that replaced `proxy`. `running` then reads their log to its end."""
    try:
        yield
    finally:
        proxy.process.terminate()
        proxy.process.wait(END_S)
        pids = [event["pid"] for event in proxy.all_events() if event["event"] == "restart_began"]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)


@contextlib.contextmanager
def replaceable_proxy(upstream: str, *arguments: str, **env: str) -> Iterator[Running]:
    """Runs the proxy in front of `upstream`, and ends it and its successors after the block."""
    with proxy_to(upstream, *arguments, **env) as proxy, ending_successors(proxy):
        yield proxy


def restart(proxy: Running) -> tuple[int, dict[str, Any]]:
    """Sends POST /restart, and returns the status and the document."""
    connection = http.client.HTTPConnection(proxy.admin_url.removeprefix("http://"), timeout=120)
    try:
        connection.request("POST", "/restart", headers={"X-Requested-With": "test"})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def restarted(proxy: Running) -> int:
    """Restarts, and returns the number of the process that serves now."""
    status, document = restart(proxy)
    assert status == 200, document
    pid: int = document["pid"]
    return pid


def ask(proxy: Running) -> int:
    """Calls on a new connection, and returns the status."""
    connection = http.client.HTTPConnection(proxy.url.removeprefix("http://"), timeout=300)
    connection.request("GET", "/api/v4/workflows")
    status = connection.getresponse().status
    connection.close()
    return status
