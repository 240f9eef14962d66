"""Health, metrics and reload on a listener of their own, behind the same guard as the callers'.

`/livez`: the event loop runs. `/readyz`: callers are served, and what is to be said of the keys; 503 with the
reason otherwise. A closed gate stays ready, and so does a refused key: its callers wait, or have the upstream's
own answer. `POST /reload`: the keys are read again now; 503 with the reason where one cannot be read.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from nanonets_proxy.core.access.peer_guard import PeerGuard
from nanonets_proxy.core.http.request_head import RequestHeads
from nanonets_proxy.errors import ProxyError
from nanonets_proxy.server.error_response import error_response
from nanonets_proxy.server.peers import peer_of
from nanonets_proxy.telemetry.key_status import KeyStatus

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Environment(Protocol):
    """A proxy, as far as it concerns operators. The only one has the empty name."""

    name: str

    def not_ready_reason(self) -> str | None:
        """None when callers can be served."""
        ...

    def key_status(self) -> KeyStatus: ...

    async def reload(self) -> str | None:
        """Reads the key again; why it could not be read."""
        ...


def create_admin_app(
    guard: PeerGuard, registry: CollectorRegistry, environments: Sequence[Environment]
) -> web.Application:
    async def livez(_: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def readyz(_: web.Request) -> web.Response:
        reasons = [environment.not_ready_reason() for environment in environments]
        return _state_of(environments, "ready", "not ready", reasons)

    async def reload(_: web.Request) -> web.Response:
        reasons = [await environment.reload() for environment in environments]
        return _state_of(environments, "reloaded", "not reloaded", reasons)

    async def show_metrics(_: web.Request) -> web.Response:
        body = generate_latest(registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    @web.middleware
    async def guarded(request: web.Request, handler: _Handler) -> Any:
        try:
            _check(guard, request)
        except ProxyError as error:
            response = error_response(error, request_id=None)
            return web.Response(status=response.status, headers=response.fields, body=response.body)
        return await handler(request)

    app = web.Application(middlewares=[guarded])
    app.on_response_prepare.append(_name_server)
    app.add_routes(
        [
            web.get("/livez", livez),
            web.get("/readyz", readyz),
            web.get("/metrics", show_metrics),
            web.post("/reload", reload),
        ]
    )
    return app


def _state_of(
    environments: Sequence[Environment], good: str, bad: str, reasons: Sequence[str | None]
) -> web.Response:
    """503 if there is any reason. The only environment stands for itself, several stand under their names."""
    parts: dict[str, dict[str, Any]] = {}
    for environment, reason in zip(environments, reasons, strict=True):
        part: dict[str, Any] = {"status": good} if reason is None else {"status": bad, "reason": reason}
        parts[environment.name] = part | {"key": environment.key_status().to_json()}
    is_good = not any(reasons)
    body = parts.get("") or {"status": good if is_good else bad, "environments": parts}
    return web.json_response(body, status=200 if is_good else 503)


async def _name_server(_: web.Request, response: web.StreamResponse) -> None:
    """Instead of the library's name and version, on its own 404 too."""
    response.headers["Server"] = "nanonets-proxy"


_HEADS: Final = RequestHeads()


def _check(guard: PeerGuard, request: web.Request) -> None:
    assert request.transport is not None
    peer = peer_of(request.transport)
    guard.check_peer(peer.address, peer.uid)
    names = tuple(name for name, _ in request.raw_headers)
    values = tuple(value for _, value in request.raw_headers)
    guard.check_request(request.method, _HEADS.read(names, values))
