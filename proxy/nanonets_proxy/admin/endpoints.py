"""The endpoints of the admin listener: each returns its response."""

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from email.utils import formatdate
from typing import Any, Final, Protocol

from prometheus_client import CollectorRegistry

from nanonets_proxy.admin import status
from nanonets_proxy.admin.dashboard import dashboard
from nanonets_proxy.core.http.headers import values_of
from nanonets_proxy.core.status.document import KeysStatus
from nanonets_proxy.server.connection.caller_request import CallerRequest
from nanonets_proxy.server.error_response import OwnResponse
from nanonets_proxy.telemetry.alerts import Alerts
from nanonets_proxy.telemetry.scrape import exposition

_JSON: Final = "application/json; charset=utf-8"

Endpoint = Callable[[CallerRequest], Awaitable[OwnResponse | None]]
"""Returns the response; None if it is sent already, and the connection must close."""


class Environment(status.Environment, Protocol):
    """What the admin listener needs of an environment. A single environment has the empty name."""

    name: str

    def not_ready_reason(self) -> str | None:
        """Returns why callers cannot be served; None if they can."""
        ...

    @property
    def alerts(self) -> Alerts: ...

    def key_status(self) -> KeysStatus: ...


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


@dataclass(frozen=True, slots=True)
class RestartResult:
    """The result of a restart: why this process goes on, or the number of the process that has replaced it."""

    fault: str | None
    pid: int


MAX_RELOADS = 8
"""At most this many reloads wait at a time, so that connections remain for the health checks."""


class Endpoints:
    """The endpoints that send one response; `events.py` has the endpoint that sends events."""

    def __init__(
        self,
        registry: CollectorRegistry,
        environments: Sequence[Environment],
        reload: Callable[[], Awaitable[ReloadResult]],
        is_permitted: Callable[[CallerRequest], bool],
    ) -> None:
        """`is_permitted` returns whether a request may see details."""
        self._registry = registry
        self._environments = environments
        self._reload_all = reload
        self._is_permitted = is_permitted
        self._waiting_reloads = 0
        self.status = status.StatusReader(environments)

    async def dashboard(self, _: CallerRequest) -> OwnResponse:
        """Returns the page."""
        page, fields = dashboard()
        response = _response(200, "text/html; charset=utf-8", page)
        response.fields.update(fields)
        return response

    async def livez(self, _: CallerRequest) -> OwnResponse:
        """Reports that the event loop runs."""
        return _json_response({"status": "alive"})

    async def readyz(self, request: CallerRequest) -> OwnResponse:
        """Reports whether callers can be served, and the status of the keys; 503 with the reason if they cannot.

        A closed gate is ready, since its callers wait. So is a rejected key, since its callers get the upstream's
        response. Without a token that is needed, there are no details.
        """
        reasons = [environment.not_ready_reason() for environment in self._environments]
        if not self._is_permitted(request):
            is_ready = not any(reasons)
            return _json_response({"status": "ready" if is_ready else "not ready"}, 200 if is_ready else 503)
        body, is_good = self._overall("ready", "not ready", reasons)
        return _json_response(body, 200 if is_good else 503)

    async def reload(self, _: CallerRequest) -> OwnResponse:
        """Reads the settings and the keys again; 503 with the reason if that fails."""
        if self._waiting_reloads >= MAX_RELOADS:
            reason = f"{MAX_RELOADS} reloads are waiting already."
            return _json_response({"status": "not reloaded", "reason": reason}, 503)
        self._waiting_reloads += 1
        try:
            result = await self._reload_all()
        finally:
            self._waiting_reloads -= 1
        body, is_good = self._overall("reloaded", "not reloaded", result.faults)
        if result.settings_fault is not None:
            reasons = filter(None, [result.settings_fault, body.get("reason")])
            body |= {"status": "not reloaded", "reason": "; ".join(reasons)}
            is_good = False
        body["settings"] = {"changed": list(result.changed), "needs_restart": list(result.needs_restart)}
        return _json_response(body, 200 if is_good else 503)

    async def metrics(self, request: CallerRequest) -> OwnResponse:
        """Returns the metrics, in the format that the scraper asks for."""
        content_type, text = await exposition.render(self._registry, _accept(request))
        return _response(200, content_type, text)

    async def read_status(self, _: CallerRequest) -> OwnResponse:
        """Returns the status document."""
        return _response(200, _JSON, self.status.read())

    def _overall(self, good: str, bad: str, reasons: Sequence[str | None]) -> tuple[dict[str, Any], bool]:
        """Returns the status of the environment, or of each one by name, and whether none has a reason."""
        parts: dict[str, dict[str, Any]] = {}
        for environment, reason in zip(self._environments, reasons, strict=True):
            part: dict[str, Any] = {"status": good} if reason is None else {"status": bad, "reason": reason}
            part["key"] = _keys_json(environment.key_status())
            if alerts := environment.alerts.to_json():
                part["alerts"] = alerts
            parts[environment.name] = part
        is_good = not any(reasons)
        return parts.get("") or {"status": good if is_good else bad, "environments": parts}, is_good


def restart_endpoint(restart: Callable[[], Awaitable[RestartResult]]) -> Endpoint:
    """Returns the endpoint that replaces the process by a new one."""

    async def replace(_: CallerRequest) -> OwnResponse:
        result = await restart()
        if result.fault is not None:
            return _json_response({"status": "not restarted", "reason": result.fault}, 503)
        return _json_response({"status": "restarted", "pid": result.pid})

    return replace


def quit_endpoint(on_quit: Callable[[], None]) -> Endpoint:
    """Returns the endpoint that drains the proxy by `on_quit`."""

    async def drain(_: CallerRequest) -> OwnResponse:
        on_quit()
        return _json_response({"status": "draining"})

    return drain


def _keys_json(status: KeysStatus) -> dict[str, Any]:
    """Returns the status of the keys, without `is_rejected` and without empty members."""
    return {name: value for name, value in asdict(status).items() if name != "is_rejected" and value}


def _accept(request: CallerRequest) -> str:
    """Returns the field Accept, whose lines belong together (RFC 9110 §5.3)."""
    return b",".join(values_of(b"accept", request.names, request.values)).decode("latin-1")


def _json_response(body: dict[str, Any], status: int = 200) -> OwnResponse:
    return _response(status, _JSON, json.dumps(body).encode())


def _response(status: int, content_type: str, body: bytes) -> OwnResponse:
    fields = {"Server": "nanonets-proxy", "Content-Type": content_type, "Content-Length": str(len(body))}
    return OwnResponse(status, fields | {"Date": formatdate(usegmt=True)}, body)
