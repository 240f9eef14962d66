"""The life of one request: guard, identify, wait, rewrite, send, judge, relay, settle.

    arrived -> refused by guard or framing            answered
            -> waiting    a ticket at the gate        may end: queue full, deadline, shutdown, hang-up
            -> admitted   a permit, the upstream has it
                 429, body can be sent again          back to waiting, at its old place
                 a passing failure, may be repeated   back to waiting after a pause (core/retry.py)
                 401, another key may work            sent again by that; in a gap held, and back to waiting
                 429, 401 otherwise, any other answer      relaying
                 no answer                            answered with the upstream error
            -> relaying   head sent; from here on an error can only reset the connection

Every permit is settled in `_attempt`, whatever ends it.
"""

import asyncio
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final

import structlog
from aiohttp import HttpVersion10, HttpVersion11, web

from nanonets_proxy.core.addresses import Origin
from nanonets_proxy.core.api_key import ApiKey
from nanonets_proxy.core.echo import KeyForms
from nanonets_proxy.core.gate import Outcome
from nanonets_proxy.core.guard import Guard
from nanonets_proxy.core.headers import NOT_FORWARDED, Extras, RequestHead, read_request_head, upstream_head
from nanonets_proxy.core.key_records import KeyTries, KeyVerdict, verdict_of
from nanonets_proxy.core.prefer import wait_s
from nanonets_proxy.core.priority import urgency
from nanonets_proxy.core.retry import Retries
from nanonets_proxy.core.retry_after import Hint
from nanonets_proxy.core.scopes import ScopeTable
from nanonets_proxy.core.target import origin_form
from nanonets_proxy.core.tickets import Permit, Ticket
from nanonets_proxy.downstream.answers import answer
from nanonets_proxy.downstream.call import Call
from nanonets_proxy.downstream.caller_body import CallerBody
from nanonets_proxy.downstream.door import Door
from nanonets_proxy.downstream.keys import Keys, tries_for
from nanonets_proxy.downstream.peers import Peer, has_hung_up
from nanonets_proxy.downstream.relay import RelayedResponse
from nanonets_proxy.downstream.retrying import Retrying
from nanonets_proxy.downstream.throttle import read_begun, read_throttle
from nanonets_proxy.downstream.waiting import WaitingRoom
from nanonets_proxy.errors import InternalError, ProxyError, UpstreamError, VersionNotSupported
from nanonets_proxy.telemetry.metrics import Metrics
from nanonets_proxy.upstream.body import BodyStore, RequestBody
from nanonets_proxy.upstream.client import Exchange, UpstreamClient, UpstreamRequest
from nanonets_proxy.upstream.reply import ResponseHead

_REFUSED_FROM_STATUS: Final = 400
# A shorter wait is none, and not worth a system call to see whether the caller is still there.
_NOTICEABLE_WAIT_S: Final = 0.001
# A request that is held while no key works is let go so long before its deadline: it wants a permit as well.
_HOLD_MARGIN_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class HandlerPolicy:
    """`max_wait_s` bounds all waiting of one request together; `idle_timeout_s` each wait for body bytes,
    `body_timeout_s` all of a request's body.
    `credentials_header` holds callers' tokens; `tls` says that callers reach us by https."""

    max_wait_s: float
    idle_timeout_s: float
    body_timeout_s: float
    caller_header: str = ""
    server_timing: bool = True
    via: str = ""
    credentials_header: str = "authorization"
    tls: bool = False
    log_fields: Mapping[str, str] = field(default_factory=dict)
    """What each of its events carries."""


@dataclass(frozen=True, slots=True)
class Services:
    """What a request needs on its way; made once by the composition root."""

    origin: Origin
    guard: Guard
    scopes: ScopeTable
    room: WaitingRoom
    store: BodyStore
    client: UpstreamClient
    keys: Keys
    retries: Retries
    metrics: Metrics
    door: Door | None = None


@dataclass(slots=True)
class Passage:
    """One request on its way: what came, its notes, its answer."""

    request: web.BaseRequest
    call: Call
    response: RelayedResponse
    head: RequestHead
    target: str
    retrying: Retrying
    body: RequestBody | None = None
    tries: KeyTries = field(default_factory=lambda: tries_for(None))
    leave_unread: Callable[[], None] | None = None
    """Called when the request has to wait."""

    @property
    def can_go_again(self) -> bool:
        return self.body is None or self.body.is_replayable


class Handler:
    """Call it with each request. Once `draining` is set, answers announce that their connection ends."""

    def __init__(self, policy: HandlerPolicy, services: Services, loop: asyncio.AbstractEventLoop) -> None:
        self._policy = policy
        self._services = services
        self._loop = loop
        self._log = structlog.get_logger(**policy.log_fields)
        self._caller_header = policy.caller_header.lower().encode()
        self._token_header = policy.credentials_header.lower().encode()
        self._not_forwarded = NOT_FORWARDED | {self._token_header}
        self._via = policy.via.encode()
        self._scheme = b"https://" if policy.tls else b"http://"
        self._forms_of: tuple[ApiKey, KeyForms] | None = None
        self._host = services.origin.authority.encode()
        self._upstream_url = str(services.origin).encode()
        self._authorities = services.origin.authorities
        self.draining = False

    async def __call__(self, request: web.BaseRequest, peer: Peer) -> web.StreamResponse:
        """Never raises but for a lost caller: every ProxyError becomes its answer here."""
        call = Call(request, peer.name)
        response = RelayedResponse(request, idle_timeout_s=self._policy.idle_timeout_s)
        try:
            await self._handle(request, peer, call, response)
        except ProxyError as error:
            return self._refuse(error, request, call, response)
        except asyncio.CancelledError:
            call.code, call.error = "caller_gone", "The caller hung up."
            if response.began:
                response.abort()
            raise
        except ConnectionError:
            call.code, call.error = "caller_gone", "The caller hung up."
            response.abort()  # one that takes nothing any more would keep its connection half closed for ever
            return response  # raised, it would make aiohttp answer, and tell of the request again
        except Exception:  # noqa: BLE001 - the border: whatever went wrong, the caller gets an answer
            self._log.exception("request_failed", request_id=call.ensure_request_id())
            return self._refuse(InternalError("The proxy failed."), request, call, response)
        else:
            return response
        finally:
            call.sent_bytes += response.sent_bytes
            call.finish(self._log, self._services.metrics)

    def refuse_malformed(self, request: web.BaseRequest, peer: Peer, error: ProxyError) -> web.StreamResponse:
        """For what the server's parser would not take: answered, logged and counted like any other refusal."""
        call = Call(request, peer.name)
        nothing_sent = RelayedResponse(request, idle_timeout_s=self._policy.idle_timeout_s)
        response = self._refuse(error, request, call, nothing_sent)
        call.finish(self._log, self._services.metrics)
        return response

    def _refuse(
        self, error: ProxyError, request: web.BaseRequest, call: Call, response: RelayedResponse
    ) -> web.StreamResponse:
        call.code, call.error = error.code, error.message
        if response.began:
            response.abort()
            return response
        call.status = error.status
        own = answer(error, call.ensure_request_id())
        if not request.content.is_eof():
            own.force_close()  # who waits for 100-continue sends no body now, whose end could not be found
        call.sent_bytes = 0 if request.method == "HEAD" else len(own.sent)
        return own

    async def _handle(self, request: web.BaseRequest, peer: Peer, call: Call, response: RelayedResponse) -> None:
        services = self._services
        services.guard.check_peer(peer.address, peer.uid)
        if request.protocol.writing_paused:
            await response.drain()  # who pipelines without reading must not have its answers pile up here
        if request.version not in (HttpVersion11, HttpVersion10):
            raise VersionNotSupported("Only HTTP/1.1 and HTTP/1.0 are spoken here.")
        head = read_request_head(
            request.raw_headers,
            caller_header=self._caller_header,
            token_header=self._token_header,
            not_forwarded=self._not_forwarded,
        )
        call.identify(head.request_id, head.caller)
        services.guard.check_method(request.method, upgrade=head.upgrade, preflight=head.is_preflight)
        target, authority = origin_form(request.method, request.raw_path, self._authorities)
        host = head.host if authority is None else authority.encode()
        services.guard.check_host(host)
        services.guard.check_origin(head.origin, head.sec_fetch_site, host)
        if services.door is not None:
            call.caller = services.door.identify(peer, head.credentials) or call.caller
            services.door.check(call.caller, request.method, target, request.raw_headers)
        call.scope = services.scopes.classify(request.method, target)

        services.retries.note_request()
        retrying = Retrying(services.retries, services.metrics.retries.inc)
        passage = Passage(request, call, response, head, target, retrying)
        if head.body_length == 0:
            await self._until_relayed(passage)
            return
        source = CallerBody(
            request,
            expect_continue=head.expect_continue and request.version >= HttpVersion11,
            idle_timeout_s=self._policy.idle_timeout_s,
            timeout_s=self._policy.body_timeout_s,
        )
        with RequestBody(source, head.body_length, services.store) as body:
            passage.body, passage.tries = body, tries_for(body)
            passage.leave_unread = source.leave_unread
            try:
                await self._until_relayed(passage)
            finally:
                call.received_bytes = body.received_bytes

    def _longest_wait_s(self, head: RequestHead) -> float:
        wished_s = wait_s(head.prefer)
        return self._policy.max_wait_s if wished_s is None else min(wished_s, self._policy.max_wait_s)

    async def _until_relayed(self, passage: Passage) -> None:
        now_s = self._loop.time()
        call, head = passage.call, passage.head
        deadline_s = now_s + self._longest_wait_s(head)
        ticket = Ticket(call.scope, deadline_s, lane=call.caller, urgency=urgency(head.priority))
        relayed = False
        while not relayed:
            waits_since_s = perf_counter()
            try:
                now_s = await self._services.keys.hold(passage.tries, now_s, ticket.deadline_s - _HOLD_MARGIN_S)
                permit = await self._services.room.admit(ticket, now_s, passage.leave_unread)
            finally:
                call.queue_s += perf_counter() - waits_since_s
            if not call.attempts:
                self._services.metrics.observe_forecast(ticket.forecast_s, call.queue_s)
            attempt_began_s = perf_counter()
            relayed = await self._attempt(passage, permit)
            await passage.retrying.pause(attempt_began_s)
            now_s = self._loop.time()

    async def _attempt(self, passage: Passage, permit: Permit) -> bool:
        """Uses up one permit; False where the request has to wait for another."""
        services, call, transport = self._services, passage.call, passage.request.transport
        outcome, retry_after_s = Outcome.UNUSED, None
        exchange: Exchange | None = None
        attempts_before = call.attempts
        try:
            if transport is None or (call.queue_s > _NOTICEABLE_WAIT_S and has_hung_up(transport)):
                raise ConnectionResetError("the caller has gone")
            started_s = perf_counter()
            try:
                exchange = await self._ask(passage, permit.ticket)
            except UpstreamError as error:
                if self._goes_again(error, passage, permit.ticket):
                    return False
                raise
            finally:
                outcome = Outcome.FAILED if call.attempts > attempts_before else Outcome.UNUSED
            if exchange is None:
                return False
            call.upstream_s = perf_counter() - started_s
            if self._goes_again(exchange.head, passage, permit.ticket):
                return False
            outcome = _outcome_of(exchange.head.status)
            begun, hint = b"", None
            if outcome is Outcome.THROTTLED:
                throttle = await read_throttle(exchange.connection, exchange.head)
                begun, hint = throttle.begun, throttle.hint
                retry_after_s = hint.retry_after_s
                self._note_throttle(call, hint)
                if passage.can_go_again:
                    return False
            await self._relay(passage, exchange, begun, hint)
            call.upstream_s = perf_counter() - started_s
            return True
        finally:
            if exchange is not None:
                services.client.finish(exchange)
            services.room.settle(permit, outcome, retry_after_s)

    def _goes_again(self, failed: UpstreamError | ResponseHead, passage: Passage, ticket: Ticket) -> bool:
        may_take_s = ticket.deadline_s - self._loop.time()
        return passage.can_go_again and passage.retrying.wants(failed, passage.call.method, may_take_s)

    async def _ask(self, passage: Passage, ticket: Ticket) -> Exchange | None:
        """The upstream's answer by whichever key it takes; None where the request has to be held for a key."""
        services = self._services
        while True:
            may_hold = self._loop.time() < ticket.deadline_s - _HOLD_MARGIN_S
            use = services.keys.choose(passage.tries, may_hold=may_hold)
            if use is None:
                return None
            outgoing = self._outgoing(passage, use.record.key)
            passage.call.attempts += 1
            verdict = KeyVerdict.UNKNOWN
            try:
                exchange = await services.client.begin(outgoing)
                verdict = verdict_of(exchange.head.status)
            finally:
                is_answer = services.keys.settle(use, verdict, passage.tries)
            if is_answer or not passage.can_go_again:
                return exchange
            try:
                await read_begun(exchange.connection)
            finally:
                services.client.finish(exchange)

    def _outgoing(self, passage: Passage, key: ApiKey) -> UpstreamRequest:
        passage.call.key_name = key.name
        if self._forms_of is None or self._forms_of[0] is not key:
            self._forms_of = key, KeyForms(key.secrets())
        passage.response.forms = self._forms_of[1]
        method, head = passage.request.method, passage.head
        lines = upstream_head(
            method.encode(),
            passage.target.encode("utf-8", "surrogateescape"),
            head,
            host=self._host,
            authorization=key.authorization(),
            via=self._via,
        )
        return UpstreamRequest(
            method, lines, passage.body, head.expect_continue, on_interim=passage.response.send_interim
        )

    async def _relay(self, passage: Passage, exchange: Exchange, begun: bytes, hint: Hint | None) -> None:
        call, head, request = passage.call, exchange.head, passage.request
        call.status = head.status
        lines = []
        if self._policy.server_timing:
            timing = b"Server-Timing: queue;dur=%.1f, upstream;dur=%.1f"
            lines.append(
                timing % (call.queue_s * 1000, (call.upstream_s or 0.0) * 1000) + passage.retrying.timing()
            )
        if self._via:
            lines.append(b"Via: 1.1 " + self._via)
        if hint is not None and hint.retry_after_s is not None and not _has(head, b"retry-after"):
            lines.append(b"Retry-After: %d" % max(1, math.ceil(hint.retry_after_s)))
        wished_s = wait_s(passage.head.prefer)
        if wished_s is not None and wished_s <= self._policy.max_wait_s:
            lines.append(b"Preference-Applied: wait=%d" % wished_s)
        extras = Extras(
            lines=lines,
            request_id=call.ensure_request_id().encode(),
            upstream_origin=self._upstream_url,
            own_origin=self._scheme + passage.head.host if passage.head.host else b"",
        )
        # A caller whose upload was refused, or who was told no 100, may leave out the rest: its next request
        # could not be found.
        waits_for_continue = passage.head.expect_continue and not request.content.total_bytes
        upload_is_over = request.content.is_eof() or not (waits_for_continue or head.status >= _REFUSED_FROM_STATUS)
        try:
            await passage.response.send(
                exchange.connection,
                head,
                extras,
                begun=begun,
                may_stay=upload_is_over and not self.draining,
            )
        finally:
            if passage.response.echoed:
                self._services.metrics.key_echoes.inc()
                self._log.error("key_echoed", status=head.status, key=call.key_name, request_id=call.request_id)

    def _note_throttle(self, call: Call, hint: Hint) -> None:
        self._services.metrics.throttled.inc()
        self._log.info(
            "cooldown",
            scope=call.scope,
            retry_after_s=hint.retry_after_s,
            hints_disagree=hint.sources_disagree,
            request_id=call.ensure_request_id(),
        )


def _outcome_of(status: int) -> Outcome:
    match status:
        case 429:
            return Outcome.THROTTLED
        case 401:
            return Outcome.KEY_REJECTED
        case _:
            return Outcome.SERVED


def _has(head: ResponseHead, name: bytes) -> bool:
    return any(field.lower() == name for field, _ in head.headers)
