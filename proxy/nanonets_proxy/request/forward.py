"""From a guarded request to its answer: wait, rewrite, send, judge, relay, settle; as often as it takes.

    waiting    a ticket at the gate; may end: queue full, deadline, shutdown, hang-up
      a permit                             -> admitted
    admitted   the upstream has it
      429, the body can be sent again      -> waiting, at its old place
      a passing failure, may be repeated   -> waiting, after a pause (core/http/retry.py)
      401, another key may work            -> admitted, sent again by that; in a gap held, then waiting
      429 and 401 otherwise, other answers -> relaying
      no answer                            -> the upstream error is the answer
    relaying   head sent; from here on an error can only reset the connection

Every permit is settled in `until_relayed`, whatever ends it.
"""

import asyncio
import math
from time import perf_counter
from typing import Final

import structlog

from nanonets_proxy.core.http.headers import LocationRewrite, caller_response_head, via_field
from nanonets_proxy.core.http.prefer import wait_s
from nanonets_proxy.core.http.priority import urgency
from nanonets_proxy.core.http.request_head import RequestHead, UpstreamHeads
from nanonets_proxy.core.http.retry import RETRIED_STATUSES
from nanonets_proxy.core.keys.api_key import ApiKey
from nanonets_proxy.core.keys.key_records import KeyVerdict, verdict_of
from nanonets_proxy.core.keys.key_scrubber import NO_FORMS, KeyForms
from nanonets_proxy.core.ratelimit.retry_hint import Hint
from nanonets_proxy.core.ratelimit.tickets import DEFAULT_URGENCY, Outcome, Ticket, TicketState
from nanonets_proxy.errors import UpstreamError
from nanonets_proxy.request.access_record import AccessRecord
from nanonets_proxy.request.context import RequestContext, Services
from nanonets_proxy.request.policy import HandlerPolicy
from nanonets_proxy.request.retrying import Retrying
from nanonets_proxy.request.throttle import read_begun, read_throttle
from nanonets_proxy.server.peers import has_hung_up
from nanonets_proxy.upstream.client import Exchange, UpstreamRequest
from nanonets_proxy.upstream.connection import UpstreamConnection
from nanonets_proxy.upstream.response_head import ResponseHead

_REFUSED_FROM_STATUS: Final = 400
# As attributes of their class they cost a call at each look, in Python 3.11.
_SERVED, _THROTTLED, _REJECTED, _FAILED, _UNUSED = Outcome
_, _REFUSED, _UNKNOWN = KeyVerdict
_ADMITTED = TicketState.ADMITTED
# A shorter wait is none, and not worth a system call to see whether the caller is still there.
_NOTICEABLE_WAIT_S: Final = 0.001
# A request that is held while no key works is let go so long before its deadline: it wants a permit as well.
_HOLD_MARGIN_S: Final = 0.1


class Forwarder:
    """Takes passages to their answers. Once `draining` is set, answers announce that their connection ends."""

    def __init__(self, policy: HandlerPolicy, services: Services, loop: asyncio.AbstractEventLoop) -> None:
        self._policy = policy
        self._services = services
        self._loop = loop
        self._log = structlog.get_logger(**policy.log_fields)
        self._via = policy.via.encode()
        self._via_field = via_field(self._via)
        self._key_in_use: ApiKey | None = None
        self._forms = NO_FORMS
        self._host = services.origin.authority.encode()
        self._heads = UpstreamHeads(host=self._host, authorization=b"")
        proxy_scheme = b"https://" if policy.tls else b"http://"
        self._location_rewrite = LocationRewrite(str(services.origin).encode(), proxy_scheme)
        self.draining = False

    async def until_relayed(self, passage: RequestContext) -> None:
        """Returns when the caller has its answer. Raises a ProxyError; ConnectionError where the caller is lost."""
        services, call, head = self._services, passage.call, passage.head
        now_s = self._loop.time()
        deadline_s = now_s + (self._longest_wait_s(head) if head.prefer else self._policy.max_wait_s)
        ticket = Ticket(
            call.scope, deadline_s, call.caller, urgency(head.priority) if head.priority else DEFAULT_URGENCY
        )
        if not services.room.try_admit(ticket, now_s):
            await self._wait(passage, ticket, now_s)
        if passage.on_permit is not None:
            passage.on_permit()
        while True:  # each time round uses up one permit
            began_s, attempts_before = perf_counter(), call.attempts
            outcome: Outcome | None = None
            retry_after_s: float | None = None
            connection: UpstreamConnection | None = None
            try:
                transport = passage.request.protocol.transport
                if transport is None or (call.wait_s > _NOTICEABLE_WAIT_S and has_hung_up(transport)):
                    raise ConnectionResetError("the caller has gone")
                exchange = await self._ask(passage, ticket)
                if exchange is not None:
                    connection, answer = exchange
                    call.upstream_s = perf_counter() - began_s
                    begun, hint, goes_again = b"", None, False
                    if answer.status == 429:
                        outcome = _THROTTLED
                        begun, hint = await self._read_throttle(call, connection, answer)
                        retry_after_s, goes_again = hint.retry_after_s, passage.can_go_again
                    elif answer.status in RETRIED_STATUSES:
                        goes_again = self._goes_again(answer, passage, ticket)
                    if not goes_again:
                        outcome = outcome or (_REJECTED if answer.status == 401 else _SERVED)
                        if not self._begin_relay(passage, connection, answer, begun, hint):
                            await passage.response.follow(connection)
                            call.upstream_s = perf_counter() - began_s
                        return
            except UpstreamError as error:
                if connection is not None or not self._goes_again(error, passage, ticket):
                    raise
            finally:
                if connection is not None:
                    services.client.finish(connection)
                    if passage.response.echoed:
                        self._note_echo(call)
                if outcome is None:
                    outcome = _FAILED if call.attempts > attempts_before else _UNUSED
                services.room.settle(ticket, outcome, retry_after_s)
            if passage.retrying is not None:
                await passage.retrying.pause(began_s)
            await self._wait(passage, ticket, self._loop.time())

    async def _wait(self, passage: RequestContext, ticket: Ticket, now_s: float) -> None:
        """For a key, then for a permit; counted in `wait_s`."""
        call, services = passage.call, self._services
        waits_since_s = perf_counter()
        try:
            if not services.keys.has_usable_key():
                now_s = await services.keys.wait_for_key(
                    passage.ensure_key_history(), now_s, ticket.deadline_s - _HOLD_MARGIN_S
                )
            admission = services.room.enter(ticket, now_s, passage.leave_unread)
            if admission is not None:
                await admission
        except asyncio.CancelledError:
            services.room.leave(ticket)
            raise
        finally:
            call.wait_s += perf_counter() - waits_since_s
            if ticket.forecast_s > 0 and not call.attempts and ticket.state is _ADMITTED:
                services.metrics.observe_forecast(ticket.forecast_s, call.wait_s)

    def _longest_wait_s(self, head: RequestHead) -> float:
        wished_s = wait_s(head.prefer)
        return self._policy.max_wait_s if wished_s is None else min(wished_s, self._policy.max_wait_s)

    def _goes_again(self, failed: UpstreamError | ResponseHead, passage: RequestContext, ticket: Ticket) -> bool:
        services = self._services
        if not services.retries.are_on or not passage.can_go_again:
            return False
        if passage.retrying is None:
            passage.retrying = Retrying(services.retries, services.metrics.retries.inc)
        return passage.retrying.wants(failed, passage.call.method, ticket.deadline_s - self._loop.time())

    async def _ask(self, passage: RequestContext, ticket: Ticket) -> Exchange | None:
        """The upstream's answer by whichever key it takes; None where the request has to be held for a key."""
        call, client, keys = passage.call, self._services.client, self._services.keys
        while True:
            history = passage.key_history
            use = keys.choose_fast() if history is None or not history.rejections else None
            if use is None:
                use = keys.choose(passage.ensure_key_history(), ticket.deadline_s - _HOLD_MARGIN_S)
                if use is None:
                    return None
            data = self._outgoing(passage, use.record.key)
            call.attempts += 1
            verdict = _UNKNOWN
            try:
                sent = (
                    client.send(call.method, data, passage.response.send_interim) if passage.body is None else None
                )
                if sent is None:
                    connection, answer = await client.begin(_request(passage, data))
                else:
                    connection, head = sent
                    try:
                        answer = await head
                    except BaseException as error:  # noqa: BLE001 - raised again there
                        connection, answer = await client.again(connection, _request(passage, data), error)
                verdict = verdict_of(answer.status)
            finally:
                is_answer = keys.settle(use, verdict, passage.ensure_key_history() if verdict is _REFUSED else None)
            if is_answer or not passage.can_go_again:
                return connection, answer
            try:
                await read_begun(connection)
            finally:
                client.finish(connection)

    def _outgoing(self, passage: RequestContext, key: ApiKey) -> bytes:
        call = passage.call
        if self._key_in_use is not key:
            self._key_in_use, self._forms = key, KeyForms(key.secrets())
            self._heads = UpstreamHeads(host=self._host, authorization=key.authorization(), via=self._via)
        call.key, passage.response.forms = key.name, self._forms
        target = passage.target.encode("utf-8", "surrogateescape")
        return self._heads.write(call.method.encode(), target, passage.head) + passage.payload

    def _begin_relay(
        self,
        passage: RequestContext,
        connection: UpstreamConnection,
        answer: ResponseHead,
        begun: bytes,
        hint: Hint | None,
    ) -> bool:
        """True if that was all; as `RelayedResponse.begin`."""
        call, response = passage.call, passage.response
        call.status = answer.status
        may_stay = not self.draining and (passage.body is None or _can_find_next(passage, answer.status))
        added = self._added_lines(passage, answer, hint, response.frame(answer, may_stay))
        lines = caller_response_head(
            answer.status,
            answer.reason,
            answer.names,
            answer.values,
            added,
            call.request_id,
            passage.head.host,
            self._location_rewrite,
        )
        return response.begin(connection, answer, lines, begun)

    def _added_lines(
        self, passage: RequestContext, answer: ResponseHead, hint: Hint | None, framing: bytes
    ) -> bytes:
        """What the proxy adds to an answer's head, to its end in the empty line."""
        call, lines = passage.call, self._via_field
        if hint is not None and hint.retry_after_s is not None and not _has(answer, b"retry-after"):
            lines += b"Retry-After: %d\r\n" % max(1, math.ceil(hint.retry_after_s))
        if passage.head.prefer:
            wished_s = wait_s(passage.head.prefer)
            if wished_s is not None and wished_s <= self._policy.max_wait_s:
                lines += b"Preference-Applied: wait=%d\r\n" % wished_s
        lines += framing
        if not self._policy.server_timing:
            return lines + b"\r\n"
        upstream_ms = (call.upstream_s or 0.0) * 1000
        if not call.wait_s and passage.retrying is None:  # mostly; each number costs as much as all the rest
            return b"Server-Timing: queue;dur=0.0, upstream;dur=%.1f\r\n%b\r\n" % (upstream_ms, lines)
        retries = b"" if passage.retrying is None else passage.retrying.timing()
        timing = (call.wait_s * 1000, upstream_ms, retries, lines)
        return b"Server-Timing: queue;dur=%.1f, upstream;dur=%.1f%b\r\n%b\r\n" % timing

    async def _read_throttle(
        self, call: AccessRecord, connection: UpstreamConnection, answer: ResponseHead
    ) -> tuple[bytes, Hint]:
        """What is read of a 429's body, and what it says."""
        throttle = await read_throttle(connection, answer)
        hint = throttle.hint
        self._services.metrics.throttled.inc()
        self._log.info(
            "cooldown",
            scope=call.scope,
            retry_after_s=hint.retry_after_s,
            hints_disagree=hint.sources_disagree,
            request_id=call.request_id,
        )
        return throttle.begun, hint

    def _note_echo(self, call: AccessRecord) -> None:
        self._services.metrics.key_echoes.inc()
        self._log.error("key_echoed", status=call.status, key=call.key, request_id=call.request_id)


def _request(passage: RequestContext, data: bytes) -> UpstreamRequest:
    call, response = passage.call, passage.response
    return UpstreamRequest(call.method, data, passage.body, passage.head.expect_continue, response.send_interim)


def _can_find_next(passage: RequestContext, status: int) -> bool:
    """Whether the next request can be found behind this one's body: a caller whose upload was refused, or who was
    told no 100, may leave out the rest."""
    content = passage.request.content
    if content.is_eof():
        return True
    waits_for_continue = passage.head.expect_continue and not content.total_bytes
    return not waits_for_continue and status < _REFUSED_FROM_STATUS


def _has(head: ResponseHead, name: bytes) -> bool:
    return any(field.lower() == name for field, _ in head.headers)
