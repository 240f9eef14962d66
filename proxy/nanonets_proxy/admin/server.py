"""The admin listener's handler: health, metrics, status and reload, on the same kind of connection as callers have.

`/livez` reports that the event loop runs. `/readyz` reports whether the proxy can serve callers, and the status of
the keys; 503 with the reason if it cannot. A closed gate is ready, since its callers wait; so is a rejected key,
since its callers get the upstream's response. `POST /reload` reads the settings and the keys again; 503 with the
reason if that fails.
"""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any, Final, Protocol

import structlog
from prometheus_client import CollectorRegistry

from nanonets_proxy.admin import status
from nanonets_proxy.admin.access import CHALLENGE, AdminAccess
from nanonets_proxy.admin.dashboard import dashboard
from nanonets_proxy.admin.events import StatusEvents
from nanonets_proxy.core.access.caller_tokens import CallerToken
from nanonets_proxy.core.access.peer_guard import PeerGuard
from nanonets_proxy.core.http.request_head import RequestHeads
from nanonets_proxy.core.http.target import origin_form
from nanonets_proxy.errors import (
    BadRequest,
    ForbiddenOrigin,
    InternalError,
    MethodNotAllowed,
    PathNotFound,
    ProxyError,
    UnknownCaller,
    VersionNotSupported,
)
from nanonets_proxy.server.caller_request import HTTP_1_0, HTTP_1_1, CallerRequest
from nanonets_proxy.server.connection_limits import ConnectionPolicy
from nanonets_proxy.server.error_response import OwnResponse, error_response
from nanonets_proxy.server.peers import reset
from nanonets_proxy.telemetry import exposition
from nanonets_proxy.telemetry.alerts import Alerts
from nanonets_proxy.telemetry.key_status import KeyStatus

_JSON: Final = "application/json; charset=utf-8"
_READ_TIMEOUT_S: Final = 10.0  # until the other side has read most of the earlier responses
_HEAD_TIMEOUT_S: Final = 10.0
_KEEP_ALIVE_S: Final = 150.0  # more than two usual intervals of a scrape
_OPEN_PATHS: Final = ("/livez", "/readyz")  # a health check has no token; /readyz shows it no details
_WANTED_FIELD: Final = b"x-requested-with"

_Endpoint = Callable[[CallerRequest], Awaitable[OwnResponse | None]]
"""Returns the response; None if it is sent already, and the connection must close."""


def admin_connection_policy(max_connections: int, last_file: int) -> ConnectionPolicy:
    """Returns the limits of the admin listener's connections. A single address may hold all of them."""
    return ConnectionPolicy(
        max_connections,
        max_connections,
        _KEEP_ALIVE_S,
        _HEAD_TIMEOUT_S,
        last_file,
        listener="admin_",
        advice="find out which process holds connections to the admin listener",
    )


class Environment(status.Environment, Protocol):
    """What the admin listener needs of an environment. A single environment has the empty name."""

    name: str

    def not_ready_reason(self) -> str | None:
        """Returns why callers cannot be served; None if they can."""
        ...

    @property
    def alerts(self) -> Alerts: ...

    def key_status(self) -> KeyStatus: ...


@dataclass(frozen=True, slots=True)
class _SentResponse:
    keep_alive: bool


@dataclass(frozen=True, slots=True)
class ReloadResult:
    """The result of a reload. The settings are named, without their values."""

    settings_fault: str | None
    """Why all settings stay as they were; None: the changed ones apply."""
    changed: Sequence[str]
    needs_restart: Sequence[str]
    """The settings that have changed, but apply only after a restart."""
    faults: Sequence[str | None]
    """For each environment, why its keys or files could not be read; None: they were."""


MAX_RELOADS = 8
"""So many reloads may wait at a time: they must leave connections for the health checks."""


class AdminHandler:
    """Handles the requests of the admin listener."""

    def __init__(
        self,
        guard: PeerGuard,
        registry: CollectorRegistry,
        environments: Sequence[Environment],
        reload: Callable[[], Awaitable[ReloadResult]],
        on_quit: Callable[[], None] | None = None,
        *,
        most_viewers: int = 256,
        tokens: Iterable[CallerToken] = (),
    ) -> None:
        """POST /quitquitquit calls `on_quit`, and does not exist without it."""
        self._guard = guard
        self._registry = registry
        self._environments = environments
        self._reload_all = reload
        self._on_quit = on_quit
        self._reloads = 0  # that wait now
        self._heads = RequestHeads()
        self._log = structlog.get_logger()
        self._status = status.StatusReader(environments)
        self.access = AdminAccess(tokens)
        self.events = StatusEvents(self._status.read, most_viewers)
        self._endpoints: dict[str, tuple[str, _Endpoint]] = {
            "/": ("GET", self._dashboard),
            "/events": ("GET", self._events),
            "/livez": ("GET", self._livez),
            "/readyz": ("GET", self._readyz),
            "/metrics": ("GET", self._metrics),
            "/status": ("GET", self._read_status),
            "/reload": ("POST", self._reload),
        }
        if on_quit is not None:
            self._endpoints["/quitquitquit"] = ("POST", self._quit)

    async def __call__(self, request: CallerRequest) -> _SentResponse:
        """Returns the response when it is sent. Raises ConnectionError if the other side has gone or is stuck."""
        await _wait_for_reader(request)
        keep_alive = request.keep_alive and request.body.is_complete
        path = "/"
        try:
            target, authority = origin_form(request.method, request.target, frozenset())
            path = target.partition("?")[0]
            self._check(request, authority, path)
            response = await self._find_endpoint(request, path)(request)
        except ProxyError as error:
            response, keep_alive = error_response(error, None), keep_alive and not error.close
            if isinstance(error, MethodNotAllowed):
                response.fields["Allow"] = self._allowed(path)
            elif isinstance(error, UnknownCaller):
                response.fields["WWW-Authenticate"] = CHALLENGE
        except ConnectionError:
            raise
        except Exception:  # noqa: BLE001 - whatever the defect, there is a response
            self._log.exception("request_failed", path=path)
            response, keep_alive = error_response(InternalError("The proxy failed."), None), False
        if response is None:
            return _SentResponse(keep_alive=False)
        response.send(request, keep_alive=keep_alive)
        return _SentResponse(keep_alive)

    def reject_malformed(self, request: CallerRequest, error: ProxyError) -> None:
        """Sends the error response to bytes that are no request, or to a peer that may not call."""
        with contextlib.suppress(ConnectionError):  # the other side has gone
            error_response(error, None).send(request, keep_alive=False)

    def _check(self, request: CallerRequest, authority: str | None, path: str) -> None:
        """Raises a ProxyError for a request that no endpoint may get."""
        if request.version not in (HTTP_1_1, HTTP_1_0):
            raise VersionNotSupported("The proxy supports HTTP/1.1 and HTTP/1.0 only.")
        head = self._heads.read(request.names, request.values)
        if not head.host and request.version >= HTTP_1_1:
            raise BadRequest("The request has no Host.")  # RFC 9112 §3.2
        self._guard.check_request(request.method, head, authority, request.peer.own_address)
        if path not in _OPEN_PATHS and not self._is_permitted(request):
            raise UnknownCaller("Requests from other machines need one of the admin_tokens.")

    def _is_permitted(self, request: CallerRequest) -> bool:
        head = self._heads.read(request.names, request.values)
        return self.access.permits(request.peer, head.credentials)

    def _find_endpoint(self, request: CallerRequest, path: str) -> _Endpoint:
        """Returns the endpoint. Raises PathNotFound, MethodNotAllowed or ForbiddenOrigin."""
        method, endpoint = self._endpoints.get(path, ("", None))
        if endpoint is None:
            raise PathNotFound("The admin listener has no such path.")
        if request.method != method and (request.method, method) != ("HEAD", "GET"):
            raise MethodNotAllowed(f"{request.method} is not supported here; use {method}.")
        if method == "POST" and not any(name.lower() == _WANTED_FIELD for name in request.names):
            # A form of a web page can send a POST, but no field of its own choice.
            raise ForbiddenOrigin("The request needs the header field X-Requested-With, with any value.")
        return endpoint

    def _allowed(self, path: str) -> str:
        method, _ = self._endpoints.get(path, ("GET", None))
        return "GET, HEAD" if method == "GET" else method

    async def _dashboard(self, _: CallerRequest) -> OwnResponse:
        page, fields = dashboard()
        response = _response(200, "text/html; charset=utf-8", page)
        response.fields.update(fields)
        return response

    async def _events(self, request: CallerRequest) -> None:
        await self.events.send_to(request)

    async def _livez(self, _: CallerRequest) -> OwnResponse:
        return _json_response({"status": "alive"})

    async def _readyz(self, request: CallerRequest) -> OwnResponse:
        reasons = [environment.not_ready_reason() for environment in self._environments]
        if not self._is_permitted(request):
            return (
                _json_response({"status": "not ready"}, 503)
                if any(reasons)
                else _json_response({"status": "ready"})
            )
        body, is_good = self._overall("ready", "not ready", reasons)
        return _json_response(body, 200 if is_good else 503)

    async def _reload(self, _: CallerRequest) -> OwnResponse:
        if self._reloads >= MAX_RELOADS:
            reason = f"{MAX_RELOADS} reloads are waiting already."
            return _json_response({"status": "not reloaded", "reason": reason}, 503)
        self._reloads += 1
        try:
            result = await self._reload_all()
        finally:
            self._reloads -= 1
        body, is_good = self._overall("reloaded", "not reloaded", result.faults)
        if result.settings_fault is not None:
            reasons = filter(None, [result.settings_fault, body.get("reason")])
            body |= {"status": "not reloaded", "reason": "; ".join(reasons)}
            is_good = False
        body["settings"] = {"changed": list(result.changed), "needs_restart": list(result.needs_restart)}
        return _json_response(body, 200 if is_good else 503)

    async def _metrics(self, request: CallerRequest) -> OwnResponse:
        content_type, text = await exposition.render(self._registry, _accept(request))
        return _response(200, content_type, text)

    async def _read_status(self, _: CallerRequest) -> OwnResponse:
        return _response(200, _JSON, self._status.read())

    async def _quit(self, _: CallerRequest) -> OwnResponse:
        assert self._on_quit is not None
        self._on_quit()
        return _json_response({"status": "draining"})

    def _overall(self, good: str, bad: str, reasons: Sequence[str | None]) -> tuple[dict[str, Any], bool]:
        """Returns the status of a single environment, or of each by its name, and whether there is no reason."""
        parts: dict[str, dict[str, Any]] = {}
        for environment, reason in zip(self._environments, reasons, strict=True):
            part: dict[str, Any] = {"status": good} if reason is None else {"status": bad, "reason": reason}
            part["key"] = environment.key_status().to_json()
            if alerts := environment.alerts.to_json():
                part["alerts"] = alerts
            parts[environment.name] = part
        is_good = not any(reasons)
        return parts.get("") or {"status": good if is_good else bad, "environments": parts}, is_good


def _accept(request: CallerRequest) -> str:
    """Returns the field Accept, whose lines belong together (RFC 9110 §5.3)."""
    fields = zip(request.names, request.values, strict=True)
    return ",".join(value.decode("latin-1") for name, value in fields if name.lower() == b"accept")


def _json_response(body: dict[str, Any], status: int = 200) -> OwnResponse:
    return _response(status, _JSON, json.dumps(body).encode())


def _response(status: int, content_type: str, body: bytes) -> OwnResponse:
    fields = {"Server": "nanonets-proxy", "Content-Type": content_type, "Content-Length": str(len(body))}
    return OwnResponse(status, fields | {"Date": formatdate(usegmt=True)}, body)


async def _wait_for_reader(request: CallerRequest) -> None:
    """Waits until the earlier responses are mostly read. Resets the connection if that takes too long."""
    connection = request.connection
    if not connection.writing.is_full:
        return
    try:
        async with asyncio.timeout(_READ_TIMEOUT_S):
            await connection.drain()
    except TimeoutError:
        if connection.transport is not None:
            reset(connection.transport)
        raise ConnectionResetError("the other side reads nothing") from None
