"""From a guarded request to its answer: wait, rewrite, send, judge, relay, settle; as often as it takes.

    waiting    a ticket at the gate; may end: queue full, deadline, shutdown, hang-up
      a permit                             -> admitted
    admitted   the upstream has it
      429, the body can be sent again      -> waiting, at its old place
      a passing failure, may be repeated   -> waiting, after a pause (core/retry.py)
      401, another key may work            -> admitted, sent again by that; in a gap held, then waiting
      429 and 401 otherwise, other answers -> relaying
      no answer                            -> the upstream error is the answer
    relaying   head sent; from here on an error can only reset the connection

Every permit is settled in `_attempt`, whatever ends it.
"""

import asyncio
import math
from time import perf_counter
from typing import Final

import structlog

from nanonets_proxy.core.api_key import ApiKey
from nanonets_proxy.core.echo import NO_FORMS, KeyForms
from nanonets_proxy.core.gate import Outcome
from nanonets_proxy.core.headers import Extras, RequestHead, upstream_head
from nanonets_proxy.core.key_records import KeyVerdict, verdict_of
from nanonets_proxy.core.prefer import wait_s
from nanonets_proxy.core.priority import urgency
from nanonets_proxy.core.retry import RETRIED_STATUSES
from nanonets_proxy.core.retry_after import Hint
from nanonets_proxy.core.tickets import DEFAULT_URGENCY, Ticket, TicketState
from nanonets_proxy.downstream.call import Call
from nanonets_proxy.downstream.passage import Passage, Services
from nanonets_proxy.downstream.peers import has_hung_up
from nanonets_proxy.downstream.policy import HandlerPolicy
from nanonets_proxy.downstream.retrying import Retrying
from nanonets_proxy.downstream.throttle import read_begun, read_throttle
from nanonets_proxy.errors import UpstreamError
from nanonets_proxy.upstream.client import Exchange, UpstreamRequest
from nanonets_proxy.upstream.reply import ResponseHead

_REFUSED_FROM_STATUS: Final = 400
# As attributes of their class they cost a call at each look, in Python 3.11.
_SERVED, _THROTTLED, _REJECTED, _FAILED, _UNUSED = Outcome
_UNKNOWN: Final = KeyVerdict.UNKNOWN
_OUTCOMES: Final = {429: _THROTTLED, 401: _REJECTED}  # all others are SERVED
# A shorter wait is none, and not worth a system call to see whether the caller is still there.
_NOTICEABLE_WAIT_S: Final = 0.001
# A request that is held while no key works is let go so long before its deadline: it wants a permit as well.
_HOLD_MARGIN_S: Final = 0.1


class Attempts:
    """Takes passages to their answers. Once `draining` is set, answers announce that their connection ends."""

    def __init__(self, policy: HandlerPolicy, services: Services, loop: asyncio.AbstractEventLoop) -> None:
        self._policy = policy
        self._services = services
        self._loop = loop
        self._log = structlog.get_logger(**policy.log_fields)
        self._via = policy.via.encode()
        self._via_line = b"Via: 1.1 %b\r\n" % self._via if policy.via else b""
        self._scheme = b"https://" if policy.tls else b"http://"
        self._key_in_use: ApiKey | None = None
        self._forms = NO_FORMS
        self._authorization = b""
        self._host = services.origin.authority.encode()
        self._upstream_url = str(services.origin).encode()
        self.draining = False

    async def until_relayed(self, passage: Passage) -> None:
        """Returns when the caller has its answer. Raises a ProxyError; ConnectionError where the caller is lost."""
        now_s = self._loop.time()
        call, head, services = passage.call, passage.head, self._services
        deadline_s = now_s + (self._longest_wait_s(head) if head.prefer else self._policy.max_wait_s)
        ticket = Ticket(
            call.scope, deadline_s, call.caller, urgency(head.priority) if head.priority else DEFAULT_URGENCY
        )
        if not services.room.admit_at_once(ticket, now_s):
            await self._wait(passage, ticket, now_s)
        if passage.on_permit is not None:
            passage.on_permit()
        attempt_began_s = perf_counter()
        while not await self._attempt(passage, ticket, attempt_began_s):
            if passage.retrying is not None:
                await passage.retrying.pause(attempt_began_s)
            await self._wait(passage, ticket, self._loop.time())
            attempt_began_s = perf_counter()

    async def _wait(self, passage: Passage, ticket: Ticket, now_s: float) -> None:
        """For a key, then for a permit; counted in `queue_s`."""
        call, services = passage.call, self._services
        waits_since_s = perf_counter()
        try:
            now_s = await services.keys.hold(passage.tries, now_s, ticket.deadline_s - _HOLD_MARGIN_S)
            await services.room.admit(ticket, now_s, passage.leave_unread)
        finally:
            call.queue_s += perf_counter() - waits_since_s
            if not call.attempts and ticket.state is TicketState.ADMITTED:
                services.metrics.observe_forecast(ticket.forecast_s, call.queue_s)

    def _longest_wait_s(self, head: RequestHead) -> float:
        wished_s = wait_s(head.prefer)
        return self._policy.max_wait_s if wished_s is None else min(wished_s, self._policy.max_wait_s)

    async def _attempt(self, passage: Passage, ticket: Ticket, began_s: float) -> bool:
        """Uses up the ticket's permit; False where the request has to wait for another."""
        services, call, transport = self._services, passage.call, passage.request.protocol.transport
        outcome, retry_after_s = _UNUSED, None
        exchange: Exchange | None = None
        attempts_before = call.attempts
        try:
            if transport is None or (call.queue_s > _NOTICEABLE_WAIT_S and has_hung_up(transport)):
                raise ConnectionResetError("the caller has gone")
            try:
                exchange = await self._ask(passage, ticket)
            except UpstreamError as error:
                if self._goes_again(error, passage, ticket):
                    return False
                raise
            finally:
                outcome = _FAILED if call.attempts > attempts_before else _UNUSED
            if exchange is None:
                return False
            call.upstream_s = perf_counter() - began_s
            status = exchange.head.status
            if status in RETRIED_STATUSES and self._goes_again(exchange.head, passage, ticket):
                return False
            outcome = _OUTCOMES.get(status, _SERVED)
            begun, hint = b"", None
            if outcome is _THROTTLED:
                throttle = await read_throttle(exchange.connection, exchange.head)
                begun, hint = throttle.begun, throttle.hint
                retry_after_s = hint.retry_after_s
                self._note_throttle(call, hint)
                if passage.can_go_again:
                    return False
            if not self._begin_relay(passage, exchange, begun, hint):
                await passage.response.follow(exchange.connection)
                call.upstream_s = perf_counter() - began_s
            return True
        finally:
            if exchange is not None:
                services.client.finish(exchange)
                if passage.response.echoed:
                    self._note_echo(call)
            services.room.settle(ticket, outcome, retry_after_s)

    def _goes_again(self, failed: UpstreamError | ResponseHead, passage: Passage, ticket: Ticket) -> bool:
        services = self._services
        if not services.retries.are_on or not passage.can_go_again:
            return False
        if passage.retrying is None:
            passage.retrying = Retrying(services.retries, services.metrics.retries.inc)
        return passage.retrying.wants(failed, passage.call.method, ticket.deadline_s - self._loop.time())

    async def _ask(self, passage: Passage, ticket: Ticket) -> Exchange | None:
        """The upstream's answer by whichever key it takes; None where the request has to be held for a key."""
        services, tries = self._services, passage.tries
        while True:
            use = services.keys.choose(tries, ticket.deadline_s - _HOLD_MARGIN_S)
            if use is None:
                return None
            outgoing = self._outgoing(passage, use.record.key)
            passage.call.attempts += 1
            verdict = _UNKNOWN
            try:
                exchange = await services.client.begin(outgoing)
                verdict = verdict_of(exchange.head.status)
            finally:
                is_answer = services.keys.settle(use, verdict, tries)
            if is_answer or not passage.can_go_again:
                return exchange
            try:
                await read_begun(exchange.connection)
            finally:
                services.client.finish(exchange)

    def _outgoing(self, passage: Passage, key: ApiKey) -> UpstreamRequest:
        call, head, response = passage.call, passage.head, passage.response
        if self._key_in_use is not key:
            self._key_in_use, self._forms, self._authorization = key, KeyForms(key.secrets()), key.authorization()
        call.key_name, response.forms = key.name, self._forms
        lines = upstream_head(
            call.method.encode(),
            passage.target.encode("utf-8", "surrogateescape"),
            head,
            host=self._host,
            authorization=self._authorization,
            via=self._via,
        )
        return UpstreamRequest(
            call.method,
            lines + passage.payload,
            passage.body,
            head.expect_continue,
            on_interim=response.send_interim,
        )

    def _begin_relay(self, passage: Passage, exchange: Exchange, begun: bytes, hint: Hint | None) -> bool:
        """True if that was all; as `RelayedResponse.begin`."""
        call, answer = passage.call, exchange.head
        call.status = answer.status
        host = passage.head.host
        extras = Extras(
            self._added_lines(passage, answer, hint),
            call.request_id.encode(),
            self._upstream_url,
            self._scheme + host if host else b"",
        )
        may_stay = not self.draining and (passage.body is None or _can_find_next(passage, answer.status))
        return passage.response.begin(exchange.connection, answer, extras, begun=begun, may_stay=may_stay)

    def _added_lines(self, passage: Passage, answer: ResponseHead, hint: Hint | None) -> bytes:
        call = passage.call
        lines = self._via_line
        if self._policy.server_timing:
            lines = b"Server-Timing: queue;dur=%.1f, upstream;dur=%.1f%b\r\n%b" % (
                call.queue_s * 1000,
                (call.upstream_s or 0.0) * 1000,
                b"" if passage.retrying is None else passage.retrying.timing(),
                lines,
            )
        if hint is not None and hint.retry_after_s is not None and not _has(answer, b"retry-after"):
            lines += b"Retry-After: %d\r\n" % max(1, math.ceil(hint.retry_after_s))
        if passage.head.prefer:
            wished_s = wait_s(passage.head.prefer)
            if wished_s is not None and wished_s <= self._policy.max_wait_s:
                lines += b"Preference-Applied: wait=%d\r\n" % wished_s
        return lines

    def _note_echo(self, call: Call) -> None:
        self._services.metrics.key_echoes.inc()
        self._log.error("key_echoed", status=call.status, key=call.key_name, request_id=call.request_id)

    def _note_throttle(self, call: Call, hint: Hint) -> None:
        self._services.metrics.throttled.inc()
        self._log.info(
            "cooldown",
            scope=call.scope,
            retry_after_s=hint.retry_after_s,
            hints_disagree=hint.sources_disagree,
            request_id=call.request_id,
        )


def _can_find_next(passage: Passage, status: int) -> bool:
    """Whether the next request can be found behind this one's body: a caller whose upload was refused, or who was
    told no 100, may leave out the rest."""
    content = passage.request.content
    if content.is_eof():
        return True
    waits_for_continue = passage.head.expect_continue and not content.total_bytes
    return not waits_for_continue and status < _REFUSED_FROM_STATUS


def _has(head: ResponseHead, name: bytes) -> bool:
    return any(field.lower() == name for field, _ in head.headers)
