"""Health and metrics on a listener of their own, behind the same guard as the callers'.

`/livez`: the event loop runs. `/readyz`: callers are served; 503 with the reason otherwise. A closed gate
stays ready: its callers wait, which is what they are here for.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from nanonets_proxy.core.guard import Guard
from nanonets_proxy.core.headers import read_request_head
from nanonets_proxy.downstream.answers import answer
from nanonets_proxy.downstream.peers import peer_of
from nanonets_proxy.errors import ProxyError
from nanonets_proxy.telemetry.metrics import Metrics

NotReadyReason = Callable[[], str | None]
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def create_admin_app(guard: Guard, metrics: Metrics, not_ready_reason: NotReadyReason) -> web.Application:
    """`not_ready_reason` returns None when callers can be served."""

    async def livez(_: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def readyz(_: web.Request) -> web.Response:
        reason = not_ready_reason()
        if reason is not None:
            return web.json_response({"status": "not ready", "reason": reason}, status=503)
        return web.json_response({"status": "ready"})

    async def show_metrics(_: web.Request) -> web.Response:
        body = generate_latest(metrics.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    @web.middleware
    async def guarded(request: web.Request, handler: _Handler) -> Any:
        try:
            _check(guard, request)
        except ProxyError as error:
            return answer(error, request_id=None)
        return await handler(request)

    app = web.Application(middlewares=[guarded])
    app.on_response_prepare.append(_name_server)
    app.add_routes([web.get("/livez", livez), web.get("/readyz", readyz), web.get("/metrics", show_metrics)])
    return app


async def _name_server(_: web.Request, response: web.StreamResponse) -> None:
    """Instead of the library's name and version, on its own 404 too."""
    response.headers["Server"] = "nanonets-proxy"


def _check(guard: Guard, request: web.Request) -> None:
    assert request.transport is not None
    guard.check_peer(peer_of(request.transport).address)
    head = read_request_head(request.raw_headers)
    guard.check_method(request.method, upgrade=head.upgrade)
    guard.check_host(head.host)
    guard.check_origin(head.origin, head.sec_fetch_site, head.host)
