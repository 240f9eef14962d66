"""The servers of one test: what the fixtures return."""

import http.client
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from nanonets_proxy.pytest_plugin import marker
from nanonets_proxy.pytest_plugin.marker import Arguments
from nanonets_proxy.pytest_plugin.template_process import TemplateProcess

_ANY_PORT: Final = "127.0.0.1:0"
# The address is in the log, at level info.
_OF_FIXTURE: Final = {"listen": _ANY_PORT, "log_format": "json", "log_level": "info"}
_TIMEOUT_S: Final = 30.0


class NanonetsRequest(NamedTuple):
    """A request that reached the simulated API."""

    method: str
    path: str
    """With the query, as it was sent."""
    status: int
    """Of the response; 0 if there was none."""
    time: float
    """When the request began, in seconds of `time.time()`."""


@dataclass(frozen=True, slots=True)
class NanonetsSandbox:
    """A simulated Nanonets API."""

    url: str
    """Such as http://127.0.0.1:40321, without a path."""
    api_key: str = field(repr=False)

    def requests(self) -> list[NanonetsRequest]:
        """Returns the API requests that have ended, in that order; the last 10,000."""
        return [NanonetsRequest(**seen) for seen in self._get("/sandbox/requests")["requests"]]

    def _get(self, path: str) -> Any:
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=_TIMEOUT_S)
        try:
            connection.request("GET", path)
            return json.load(connection.getresponse())
        finally:
            connection.close()


@dataclass(frozen=True, slots=True)
class NanonetsProxy:
    """A proxy in front of a simulated API. Callers need no key, and any key that a client sends is replaced."""

    url: str
    """Such as http://127.0.0.1:40321, without a path."""
    sandbox: NanonetsSandbox

    def requests(self) -> list[NanonetsRequest]:
        """Returns the requests that the proxy has sent to the simulated API."""
        return self.sandbox.requests()


@contextmanager
def sandbox(template: TemplateProcess, arguments: Arguments) -> Iterator[NanonetsSandbox]:
    """Runs a simulated API."""
    command = ["sandbox", "--listen", _ANY_PORT, *_flags(arguments.sandbox)]
    with _served(template, command, None) as url:
        yield NanonetsSandbox(url, arguments.api_key)


@contextmanager
def proxy(template: TemplateProcess, arguments: Arguments, behind: NanonetsSandbox) -> Iterator[NanonetsProxy]:
    """Runs a proxy in front of a simulated API."""
    if taken := _OF_FIXTURE.keys() & arguments.proxy.keys():
        marker.fail(f"proxy: {min(taken)!r} belongs to the fixture, which finds the proxy's address by it")
    own = {"admin_listen": "off", "upstream": behind.url, **arguments.proxy, **_OF_FIXTURE}
    command = ["serve", *_flags(own)]
    with _served(template, command, behind.api_key) as url:
        yield NanonetsProxy(url, behind)


@contextmanager
def _served(template: TemplateProcess, command: list[str], key: str | None) -> Iterator[str]:
    server = template.start(command, key)
    try:
        if server.fault:
            marker.fail(server.fault.replace("nanonets-proxy: ", "", 1))
        yield f"http://{server.address}"
    finally:
        template.end(server)


def _flags(settings: Mapping[str, str | bool]) -> list[str]:
    return [_flag(name.replace("_", "-"), value) for name, value in settings.items()]


def _flag(name: str, value: str | bool) -> str:
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no-{name}"
    return f"--{name}={value}"
