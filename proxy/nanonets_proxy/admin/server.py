"""The admin application: health, metrics and reload, behind the same guard as the callers' listener.

`/livez` reports that the event loop runs. `/readyz` reports whether the proxy can serve callers, and the status of
the keys; 503 with the reason if it cannot. A closed gate is ready, since its callers wait; so is a rejected key,
since its callers get the upstream's response. `POST /reload` reads the keys again; 503 with the
reason if that fails.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol, cast

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from nanonets_proxy.core.access.peer_guard import PeerGuard
from nanonets_proxy.core.http.request_head import RequestHeads
from nanonets_proxy.errors import ProxyError
from nanonets_proxy.server.connection_limits import REFUSAL
from nanonets_proxy.server.error_response import error_response
from nanonets_proxy.server.peers import peer_of
from nanonets_proxy.telemetry.alerts import Alerts
from nanonets_proxy.telemetry.key_status import KeyStatus

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Environment(Protocol):
    """What the admin application needs of an environment. A single environment has the empty name."""

    name: str

    def not_ready_reason(self) -> str | None:
        """Returns why callers cannot be served; None if they can."""
        ...

    @property
    def alerts(self) -> Alerts: ...

    def key_status(self) -> KeyStatus: ...

    async def reload(self) -> str | None:
        """Reads the keys again; returns why that failed, None if it did not."""
        ...


def create_admin_app(
    guard: PeerGuard,
    registry: CollectorRegistry,
    environments: Sequence[Environment],
    unread_settings: Callable[[], str | None] = lambda: None,
    on_quit: Callable[[], None] | None = None,
) -> web.Application:
    """Returns the application.

    `unread_settings` returns a sentence if a reload leaves changed settings unread. POST /quitquitquit calls
    `on_quit`, and does not exist without it.
    """

    async def livez(_: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def readyz(_: web.Request) -> web.Response:
        reasons = [environment.not_ready_reason() for environment in environments]
        return _status_response(environments, "ready", "not ready", reasons)

    async def reload(_: web.Request) -> web.Response:
        reasons = [await environment.reload() for environment in environments]
        return _status_response(environments, "reloaded", "not reloaded", reasons, unread_settings())

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
    app.on_response_prepare.append(_set_server_field)
    if on_quit is not None:
        app.router.add_post("/quitquitquit", _quit_handler(on_quit))
    app.add_routes(
        [
            web.get("/livez", livez),
            web.get("/readyz", readyz),
            web.get("/metrics", show_metrics),
            web.post("/reload", reload),
        ]
    )
    return app


def _quit_handler(on_quit: Callable[[], None]) -> _Handler:
    async def quit_proxy(_: web.Request) -> web.Response:
        on_quit()
        return web.json_response({"status": "draining"})

    return quit_proxy


def _status_response(
    environments: Sequence[Environment],
    good: str,
    bad: str,
    reasons: Sequence[str | None],
    warning: str | None = None,
) -> web.Response:
    """Responds with the status of a single environment, or of each by its name; 503 if there is any reason."""
    parts: dict[str, dict[str, Any]] = {}
    for environment, reason in zip(environments, reasons, strict=True):
        part: dict[str, Any] = {"status": good} if reason is None else {"status": bad, "reason": reason}
        part["key"] = environment.key_status().to_json()
        if alerts := environment.alerts.to_json():
            part["alerts"] = alerts
        parts[environment.name] = part
    is_good = not any(reasons)
    body = parts.get("") or {"status": good if is_good else bad, "environments": parts}
    if warning is not None:
        body = body | {"warning": warning}
    return web.json_response(body, status=200 if is_good else 503)


async def _set_server_field(_: web.Request, response: web.StreamResponse) -> None:
    """Replaces aiohttp's name and version, also on aiohttp's own 404."""
    response.headers["Server"] = "nanonets-proxy"


def limited(server: web.Server, max_connections: int) -> Callable[[], asyncio.Protocol]:
    """Returns a factory of `server`'s connections that rejects each one beyond `max_connections`."""
    return lambda: server() if len(server.connections) < max_connections else _RejectedConnection()


class _RejectedConnection(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        writer = cast("asyncio.WriteTransport", transport)
        writer.write(REFUSAL)
        writer.close()


_HEADS: Final = RequestHeads()


def _check(guard: PeerGuard, request: web.Request) -> None:
    assert request.transport is not None
    peer = peer_of(request.transport)
    guard.check_peer(peer.address, peer.uid)
    names = tuple(name for name, _ in request.raw_headers)
    values = tuple(value for _, value in request.raw_headers)
    guard.check_request(request.method, _HEADS.read(names, values))
