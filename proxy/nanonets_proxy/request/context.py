"""What a request is on its way, and what it meets there."""

from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from nanonets_proxy.admission.waiting_room import WaitingRoom
from nanonets_proxy.core.access.peer_guard import PeerGuard
from nanonets_proxy.core.http.request_head import RequestHead
from nanonets_proxy.core.http.retry import Retries
from nanonets_proxy.core.keys.key_records import KeyHistory
from nanonets_proxy.core.net.addresses import Origin
from nanonets_proxy.core.ratelimit.scopes import ScopeTable
from nanonets_proxy.request.access_record import AccessRecord
from nanonets_proxy.request.authorizer import Authorizer
from nanonets_proxy.request.keys import KeyProvider
from nanonets_proxy.request.relay import RelayedResponse
from nanonets_proxy.request.retrying import Retrying
from nanonets_proxy.telemetry.metrics import Metrics
from nanonets_proxy.upstream.body import BodyStore, RequestBody
from nanonets_proxy.upstream.client import UpstreamClient


@dataclass(frozen=True, slots=True)
class Services:
    """What a request needs on its way; made once by the composition root."""

    origin: Origin
    guard: PeerGuard
    scopes: ScopeTable
    room: WaitingRoom
    store: BodyStore
    client: UpstreamClient
    keys: KeyProvider
    retries: Retries
    metrics: Metrics
    door: Authorizer | None = None


@dataclass(slots=True)
class RequestContext:
    """One request on its way: what came, its notes, its answer."""

    request: web.BaseRequest
    call: AccessRecord
    response: RelayedResponse
    head: RequestHead
    target: str
    payload: bytes = b""
    """A body that came with the head, whole; any other is `body`."""
    on_permit: Callable[[], None] | None = None
    """Called when the payload waits no longer."""
    body: RequestBody | None = None
    leave_unread: Callable[[], None] | None = None
    """Called when the request has to wait."""
    retrying: Retrying | None = None
    """Of one that has failed before."""
    key_history: KeyHistory | None = None
    """Of one that has waited, or for which the keys were thought over."""

    @property
    def can_go_again(self) -> bool:
        return self.body is None or self.body.is_replayable

    def ensure_key_history(self) -> KeyHistory:
        """Its part with the keys. A large upload tests no candidate one: it would have to go twice."""
        if self.key_history is None:
            self.key_history = KeyHistory(may_test_candidate=self.body is None or self.body.is_small)
        return self.key_history
