"""The admin listener's handler: checks each request, and finds its endpoint.

The connections are of the same class as those of callers. `endpoints.py` has the endpoints, `events.py` the events,
and `dashboard.py` the page.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import structlog
from prometheus_client import CollectorRegistry

from nanonets_proxy.admin.access import CHALLENGE, AdminAccess
from nanonets_proxy.admin.endpoints import (
    Endpoint,
    Endpoints,
    Environment,
    ReloadResult,
    RestartResult,
    quit_endpoint,
    restart_endpoint,
)
from nanonets_proxy.admin.events import StatusEvents
from nanonets_proxy.core.access.caller_tokens import CallerToken
from nanonets_proxy.core.access.peer_guard import PeerGuard
from nanonets_proxy.core.http.request_head import RequestHeads
from nanonets_proxy.core.http.target import origin_form
from nanonets_proxy.errors import (
    BadRequest,
    ForbiddenOrigin,
    ForbiddenPeer,
    InternalError,
    MethodNotAllowed,
    PathNotFound,
    ProxyError,
    UnknownCaller,
    VersionNotSupported,
)
from nanonets_proxy.server.connection.caller_request import HTTP_1_0, HTTP_1_1, CallerRequest
from nanonets_proxy.server.connection_limits import ConnectionPolicy
from nanonets_proxy.server.error_response import OwnResponse, error_response
from nanonets_proxy.server.peers import reset
from nanonets_proxy.telemetry.alerts import Alerts

_READ_TIMEOUT_S: Final = 10.0  # until the other side has read most of the earlier responses
_HEAD_TIMEOUT_S: Final = 10.0
_KEEP_ALIVE_S: Final = 150.0  # more than two usual intervals of a scrape
_OPEN_PATHS: Final = ("/livez", "/readyz")  # a health check has no token; /readyz shows it no details
_WANTED_FIELD: Final = b"x-requested-with"


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


@dataclass(frozen=True, slots=True)
class _SentResponse:
    keep_alive: bool


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
        alerts: Alerts,
        restart: Callable[[], Awaitable[RestartResult]] | None = None,
        redact: Callable[[bytes], bytes] = bytes,
        most_viewers: int = 256,
        tokens: Iterable[CallerToken] = (),
    ) -> None:
        """POST /quitquitquit calls `on_quit`, and POST /restart `restart`. Without them, neither exists.

        `redact` masks secrets in what is sent: callers choose names and models, and may take a key for one.
        """
        self._guard = guard
        self._heads = RequestHeads()
        self._log = structlog.get_logger()
        self._alerts = alerts
        self.access = AdminAccess(tokens)
        own = Endpoints(registry, environments, reload, self._is_permitted)
        self._redact = redact
        self.draining = False
        """Whether each response ends its connection."""
        self.events = StatusEvents(lambda: redact(own.status.read()), most_viewers)
        self._endpoints: dict[str, tuple[str, Endpoint]] = {
            "/": ("GET", own.dashboard),
            "/events": ("GET", self.events.send_to),
            "/livez": ("GET", own.livez),
            "/readyz": ("GET", own.readyz),
            "/metrics": ("GET", own.metrics),
            "/status": ("GET", own.read_status),
            "/reload": ("POST", own.reload),
        }
        if restart is not None:
            self._endpoints["/restart"] = ("POST", restart_endpoint(restart))
        if on_quit is not None:
            self._endpoints["/quitquitquit"] = ("POST", quit_endpoint(on_quit))

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
        # The dashboard is the same for everybody, and its policy has the hash of its script.
        is_page = path == "/" and response.status == HTTPStatus.OK
        body = response.body if is_page else self._redact(response.body)
        fields = response.fields | {"Content-Length": str(len(body))}
        keep_alive = keep_alive and not self.draining
        OwnResponse(response.status, fields, body).send(request, keep_alive=keep_alive)
        return _SentResponse(keep_alive)

    def reject_malformed(self, request: CallerRequest, error: ProxyError) -> None:
        """Sends the error response to bytes that are no request, or to a peer that may not call."""
        if isinstance(error, ForbiddenPeer):
            # A health check that fails shows nobody the address that it came from.
            self._alerts.report(
                "peer_rejected",
                "see the setting admin_allow_from",
                kind="admin",
                peer=request.peer.name,
                error=error.message,
            )
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

    def _find_endpoint(self, request: CallerRequest, path: str) -> Endpoint:
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
