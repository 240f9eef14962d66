"""The state of one request, and the services that it uses."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from nanonets_proxy.admission.admission import Admission
from nanonets_proxy.core.access.peer_guard import PeerGuard
from nanonets_proxy.core.coalescing.groups import Groups
from nanonets_proxy.core.http.request_head import RequestHead
from nanonets_proxy.core.http.retry import Retries
from nanonets_proxy.core.keys.key_records import KeyHistory, KeyUse
from nanonets_proxy.core.net.addresses import Origin
from nanonets_proxy.core.ratelimit.scopes.page_costs import PageCosts
from nanonets_proxy.core.ratelimit.scopes.scope_table import ScopeTable
from nanonets_proxy.core.ratelimit.tickets import Ticket
from nanonets_proxy.request.access_record import AccessRecord
from nanonets_proxy.request.authorizer import Authorizer
from nanonets_proxy.request.ports import AttemptNotes, JobSteps, JobTaker, KeyProvider, Sharing, Tracer
from nanonets_proxy.request.received import Received
from nanonets_proxy.request.response.last_refusals import LastRefusal
from nanonets_proxy.request.response.relay import RelayedResponse
from nanonets_proxy.request.upload_pages import PageCount, UploadPages
from nanonets_proxy.server.connection.caller_body import CallerBody
from nanonets_proxy.server.connection.caller_request import CallerRequest
from nanonets_proxy.server.connection.flow_control import FlowControl
from nanonets_proxy.telemetry.finished_request import Observer
from nanonets_proxy.telemetry.ledger.ledger import Ledger
from nanonets_proxy.telemetry.metrics import Metrics
from nanonets_proxy.telemetry.unexpected_responses import UnexpectedResponses
from nanonets_proxy.upstream.body import BodyBudget, LostCopy, RequestBody
from nanonets_proxy.upstream.client import UpstreamClient
from nanonets_proxy.upstream.response_head import ResponseHead

_MOST_TARGET_CHARS: Final = 512
"""The keyring remembers targets: longer ones with the same beginning count as one."""


@dataclass(frozen=True, slots=True)
class Services:
    """The services that all requests of an environment share; the composition root makes them."""

    origin: Origin
    guard: PeerGuard
    scopes: ScopeTable
    waiting_room: Admission
    body_budget: BodyBudget
    client: UpstreamClient
    keys: KeyProvider
    retries: Retries
    metrics: Metrics
    unexpected: UnexpectedResponses
    observers: tuple[Observer, ...]
    """Called with the access record of each finished request."""
    redact: Callable[[bytes], bytes]
    """Masks secrets."""
    coalescing_groups: Groups[Any]
    """The identical GETs that share a request, which writes may concern. A reload keeps them."""
    authorizer: Authorizer | None = None
    tracer: Tracer | None = None
    """None: no spans are recorded."""
    page_costs: PageCosts | None = None
    """None: each request costs 1."""
    upload_pages: UploadPages | None = None
    """None: no pages are counted."""
    ledger: Ledger | None = None
    jobs: JobTaker | None = None
    """None: callers wait for their responses."""


class UploadPlace:
    """The place in flight of a request whose body is streamed."""

    __slots__ = ("_ticket", "_waiting_room")

    def __init__(self, waiting_room: Admission, ticket: Ticket) -> None:
        self._waiting_room = waiting_room
        self._ticket = ticket

    def pause(self, body: CallerBody) -> None:
        self._waiting_room.pause(self._ticket, body.give_up)

    async def resume(self) -> None:
        await self._waiting_room.resume(self._ticket)


@dataclass(frozen=True, slots=True)
class Kept401:
    """A whole 401 that becomes the response if it turns out not to concern the key of `use`."""

    use: KeyUse
    head: ResponseHead
    body: bytes
    trailers: list[tuple[bytes, bytes]]
    is_complete = True

    def read_nowait(self) -> bytes:
        """Returns nothing: `body` is the whole body."""
        return b""

    async def read(self) -> bytes:
        return b""

    def as_received(self) -> Received:
        """Returns it as a response that has just arrived, and whose connection is released already."""
        return Received(self, self.head, body_start=self.body)  # type: ignore[arg-type]  # a whole body needs no more


@dataclass(slots=True)
class RequestContext:
    """One request with its access record, its response and its progress."""

    request: CallerRequest
    record: AccessRecord
    response: RelayedResponse
    head: RequestHead
    target: str
    line_start: bytes
    """The start of the upstream's request line, up to the target's end."""
    cost: float = 1
    """The units of the scope's limit that the request uses."""
    page_count: PageCount | None = None
    """None: the pages are stated, do not matter, or cannot be counted."""
    payload: bytes = b""
    """A whole body that came with the head; any other body is `body`."""
    read_ahead: FlowControl | None = None
    """Releases the room that `payload` occupies, once the request has a permit."""
    body: RequestBody | None = None
    body_source: CallerBody | None = None
    """The source of `body`; while the request waits, the source is left unread."""
    key_history: KeyHistory | None = None
    """Made on first need, by `ensure_key_history`: few requests need it."""
    kept: Kept401 | None = None
    """Between Step.KEEP and the ruling."""
    replay_reason: str = ""
    """Why the request is sent again, other than as a retry; "" if it is not."""
    failure: str = ""
    """The kind of the last failure after which the request is to be sent again."""
    last_refusal: LastRefusal | None = None
    """The latest 429 of this request."""
    usage: AttemptNotes | None = None
    """None: there is no usage ledger."""
    may_be_coalesced: bool = False
    """Whether it may share a request with identical ones, as far as method and target show."""
    sharing: Sharing | None = None
    """None: the request has nothing to do with others."""
    job: JobSteps | None = None
    """None: a caller waits for the response."""
    retries: int = 0
    retry_spent_s: float = 0.0
    """Duration of the attempts that were retried, and of the pauses after them."""

    @property
    def method(self) -> str:
        return self.record.method

    @property
    def lost_copy(self) -> LostCopy | None:
        """Why the body cannot be sent again; None if it can."""
        return None if self.body is None or self.body.is_replayable else self.body.lost

    @property
    def can_be_sent_again(self) -> bool:
        """Whether the body was kept as far as it was read."""
        return self.body is None or self.body.is_replayable

    def ensure_key_history(self) -> KeyHistory:
        """Returns the request's history with keys.

        A large upload tests no candidate key: after a rejection, the whole body would be sent again.
        """
        if self.key_history is None:
            may_test = self.body is None or self.body.fits_memory
            path = self.target.partition("?")[0][:_MOST_TARGET_CHARS]
            self.key_history = KeyHistory(may_test, f"{self.method} {path}")
        return self.key_history


Forward = Callable[[RequestContext], Awaitable[None]]
"""Forwards a request. Raises as `Forwarder.forward`."""
