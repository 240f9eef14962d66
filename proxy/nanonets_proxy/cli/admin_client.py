"""Requests to a running proxy's admin listener: its readiness, its status, a reload and a restart.

Uses only the standard library, because containers run `healthcheck` often.
"""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from typing import Any, Final

from nanonets_proxy.cli.output import CommandFailed
from nanonets_proxy.core.net.addresses import Listener, UnixListener, reachable_host

TIMEOUT_S: Final = 3.0
_MAX_BODY_BYTES: Final = 256 * 1024


class _UnixConnection(HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def is_ready(address: Listener) -> tuple[bool, str]:
    """Returns whether GET /readyz gives 200 within `TIMEOUT_S`, and a line for the user."""
    try:
        status, body_line = _send_for_line(address, "GET", "/readyz", TIMEOUT_S)
    except NoResponse as error:
        return False, f"unhealthy: {error}"
    return (True, "healthy") if status == 200 else (False, f"unhealthy: {status} {body_line}")


def reload(address: Listener, timeout_s: float) -> str:
    """Reloads within `timeout_s` by POST /reload, and returns a line for the user. Raises CommandFailed."""
    return _change(address, "/reload", timeout_s, "reloaded", lambda body: _settings_sentence(body["settings"]))


def restart(address: Listener, timeout_s: float) -> str:
    """Restarts within `timeout_s` by POST /restart, and returns a line for the user. Raises CommandFailed."""
    return _change(address, "/restart", timeout_s, "restarted", lambda body: f"process {body['pid']} serves now")


def _change(
    address: Listener, path: str, timeout_s: float, done: str, sentence: Callable[[dict[str, Any]], str]
) -> str:
    """Posts to a path, and reads the JSON of the response. `sentence` tells what has changed."""
    try:
        status, body_line = _send_for_line(address, "POST", path, timeout_s)
    except NoResponse as error:
        raise CommandFailed(f"not {done}: {error}") from None
    try:
        body = json.loads(body_line)
        if status == 200:
            return f"{done}: {sentence(body)}"
        reason = body["reason"]
    except (ValueError, KeyError, TypeError):  # not from this program
        reason = f"{status} {body_line}"
    raise CommandFailed(f"not {done}: {reason}")


def _settings_sentence(settings: dict[str, list[str]]) -> str:
    changed, needs_restart = settings["changed"], settings["needs_restart"]
    match changed:
        case []:
            sentence = "no setting has changed"
        case [name]:
            sentence = f"{name} has changed"
        case _:
            sentence = f"{len(changed)} settings have changed ({', '.join(changed)})"
    if needs_restart:
        verb = "applies" if len(needs_restart) == 1 else "apply"
        sentence += f"; {', '.join(needs_restart)} {verb} after a restart"
    return sentence


def read_status(address: Listener) -> bytes:
    """Returns the document of GET /status. Raises NoResponse if the proxy does not send it."""
    status, body, reason = _send(address, "GET", "/status", TIMEOUT_S)
    if status == 404:
        raise NoResponse(f"the server on {address} has no /status: it is another program, or an older proxy")
    if status == 401:
        raise NoResponse(
            f"{address} wants a token: let the first address of admin_listen be loopback or a unix socket"
        )
    if status != 200:
        raise NoResponse(f"the server on {address} responds with {status} {reason}")
    return body


class NoResponse(Exception):
    """The admin listener sent no response that can be used. The message is the end of a sentence."""


def _send_for_line(address: Listener, method: str, path: str, timeout_s: float) -> tuple[int, str]:
    """Returns the status, and the first line of the body or else the reason phrase. Raises NoResponse."""
    status, body, reason = _send(address, method, path, timeout_s)
    return status, body.decode("utf-8", "replace").strip().partition("\n")[0] or reason


def _send(address: Listener, method: str, path: str, timeout_s: float) -> tuple[int, bytes, str]:
    """Returns the response's status, its body and its reason phrase.

    Raises:
        NoResponse: nothing listens on `address`, it does not speak HTTP, or it takes longer than `timeout_s`.
    """
    if isinstance(address, UnixListener):
        connection: HTTPConnection = _UnixConnection(address.path, timeout_s)
    else:
        connection = HTTPConnection(reachable_host(address.host), address.port, timeout=timeout_s)
    try:
        with _time_limit(connection, timeout_s):
            connection.connect()
            # The admin listener requires this field of a POST: a form of a web page cannot send it.
            connection.request(method, path, headers={"X-Requested-With": "nanonets-proxy"})
            response = connection.getresponse()
            return response.status, response.read(_MAX_BODY_BYTES), response.reason
    except OSError as error:
        raise NoResponse(f"no response from {address}: {(error.strerror or str(error)).lower()}") from None
    except HTTPException:
        raise NoResponse(f"the server on {address} does not speak HTTP") from None
    finally:
        connection.close()


@contextmanager
def _time_limit(connection: HTTPConnection, timeout_s: float) -> Iterator[None]:
    """Ends the connection when the time is over. Raises TimeoutError then.

    The timeout of a socket begins again with each octet, so a server that sends few of them could hold the command.
    """
    is_over = threading.Event()

    def end() -> None:
        is_over.set()
        if connection.sock is not None:
            with suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(timeout_s, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (OSError, HTTPException):
        if not is_over.is_set():
            raise
    finally:
        timer.cancel()
    if is_over.is_set():
        raise TimeoutError("timed out")
