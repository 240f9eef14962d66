"""Forwards a request: waits for a permit, sends the request, judges the result, relays the response.

A request is in one of these states:

    WAITING    has a ticket at the gate, and no permit
      a permit is granted                          -> ADMITTED
      queue full, deadline passed, shutting down   -> ended: the error becomes the response
      the caller hangs up                          -> ended: the ticket is withdrawn
    ADMITTED   has a permit; makes one attempt after another with it, judged by judge.py
      Step.SEND_WITH_OTHER_KEY                     -> ADMITTED, with the same permit
      Step.KEEP                                    -> KEEPING
      Step.WAIT, or no key can be used now         -> WAITING, at its old place
      Step.RETRY                                   -> WAITING, after a pause
      Step.REPORT                                  -> ended: the error becomes the response
      Step.RELAY                                   -> RELAYING
    KEEPING    has a 401 and no permit, while other requests show whether the key works
      it works, or it is not known in time         -> RELAYING
      it does not work, or there is another key    -> WAITING, at its old place
    RELAYING   the caller has the response's head; from now on an error can only reset the connection
      end of the response, or an error             -> ended

Each permit is settled once: by `_use_permit`, or by `WaitingRoom.leave` if the task is cancelled before it runs on.
"""

import asyncio
from time import perf_counter
from typing import Final

import structlog

from nanonets_proxy.core.api.unexpected import USUAL_TYPES
from nanonets_proxy.core.http.priority import urgency
from nanonets_proxy.core.http.retry import RETRIED_STATUSES
from nanonets_proxy.core.keys.key_records import KeyUse, KeyVerdict, Ruling, verdict_of
from nanonets_proxy.core.keys.key_scrubber import KeyScrubber
from nanonets_proxy.core.ratelimit.hints.rate_limit_fields import read_advice
from nanonets_proxy.core.ratelimit.scopes.static_limits import REQUESTS
from nanonets_proxy.core.ratelimit.tickets import DEFAULT_URGENCY, Outcome, Ticket, TicketState
from nanonets_proxy.errors import ProxyError, RateLimited
from nanonets_proxy.request.access_record import AccessRecord, new_id
from nanonets_proxy.request.context import KeptResponse, RequestContext, Services, UploadPlace
from nanonets_proxy.request.judge import HOLD_FOR_KEY, RELAY_REJECTED, Decision, Judge, Step
from nanonets_proxy.request.policy import HandlerPolicy
from nanonets_proxy.request.received import Received
from nanonets_proxy.request.response.body_start import hint_of, read_body_start
from nanonets_proxy.request.response.heads import ResponseHeads
from nanonets_proxy.request.response.refusals import Refusals
from nanonets_proxy.request.response.unexpected import examine, examine_copied
from nanonets_proxy.request.upstream_requests import UpstreamRequests
from nanonets_proxy.request.usage import RequestUsage
from nanonets_proxy.server.peers import has_hung_up
from nanonets_proxy.telemetry.unexpected_responses import FIRST_ERROR_STATUS
from nanonets_proxy.upstream.errors import UpstreamBadReply, UpstreamError

# In Python 3.11, each look-up of a member in its enum costs a call.
_RELAY, _REPORT, _OTHER_KEY, _RETRY = Step.RELAY, Step.REPORT, Step.SEND_WITH_OTHER_KEY, Step.RETRY
_KEEP = Step.KEEP
_SERVED, _THROTTLED, _FAILED, _UNUSED = Outcome.SERVED, Outcome.THROTTLED, Outcome.FAILED, Outcome.UNUSED
_KEY_REJECTED, _KEY_UNKNOWN = KeyVerdict.REJECTED, KeyVerdict.UNKNOWN
_ADMITTED = TicketState.ADMITTED
# After a shorter wait, a system call to find out whether the caller is still there is not worth its cost.
_NOTICEABLE_WAIT_S: Final = 0.001
# A request that is held while no key works is released this long before its deadline: it needs a permit as well.
_HOLD_MARGIN_S: Final = 0.1


class Forwarder:
    """Forwards the requests of one environment."""

    def __init__(self, policy: HandlerPolicy, services: Services, loop: asyncio.AbstractEventLoop) -> None:
        self._policy = policy
        self._services = services
        self._loop = loop
        self._log = structlog.get_logger(**policy.log_fields)
        self._environment = policy.log_fields.get("environment", "")
        self._judge = Judge(services.retries)
        self.response_heads = ResponseHeads(policy, services.origin, services.keys.reason_of_401)
        self._refusals = Refusals(services, self.response_heads, self._log)
        self._requests = UpstreamRequests(policy, services)

    def drain(self) -> None:
        """From now on each response announces that its connection closes."""
        self.response_heads.draining = True

    async def forward(self, context: RequestContext) -> None:
        """Returns when the caller has the whole response.

        Raises the ProxyError that must become the response, or must break off a response that has begun. Raises
        ConnectionError if the caller is lost.
        """
        if self._services.ledger is not None:
            context.usage = RequestUsage(self._services.ledger, self._environment, context)
        now_s = self._loop.time()
        ticket = self._ticket(context, now_s)
        try:
            if not self._services.waiting_room.try_admit(ticket, now_s):
                await self._wait(context, ticket, now_s)
            if context.read_ahead is not None:
                context.read_ahead.release()
            if context.body_source is not None:
                context.body_source.place = UploadPlace(self._services.waiting_room, ticket)
            while True:
                began_s = perf_counter()
                decision = await self._use_permit(context, ticket, began_s)
                if decision.step is _RELAY or (decision.step is _KEEP and await self._relay_kept(context, ticket)):
                    return
                if context.job is not None:
                    context.job.send_again()
                if decision.step is _RETRY:
                    await self._pause(context, decision.pause_s, began_s)
                if context.page_count is not None:
                    await context.page_count.finish()
                await self._wait(context, ticket, self._loop.time())
        except RateLimited as error:
            if (context.job is not None and context.job.waits_on(error)) or not self._refusals.relay(
                context, error
            ):
                raise

    def _ticket(self, context: RequestContext, now_s: float) -> Ticket:
        """Returns the ticket of a request that begins to wait now."""
        head, record = context.head, context.record
        max_wait_s = self._policy.max_wait_for(head.prefer) if head.prefer else self._policy.max_wait_s
        level = urgency(head.priority) if head.priority else DEFAULT_URGENCY
        # A request may have waited for the response to an identical one already.
        deadline_s = now_s + max_wait_s - record.wait_s
        ticket = Ticket(record.scope, deadline_s, record.caller, level, context.cost, context.target)
        if context.page_count is not None:
            context.page_count.ticket = ticket
        return ticket

    async def _wait(self, context: RequestContext, ticket: Ticket, now_s: float) -> None:
        """Waits for a key, then for a permit. Raises RateLimited or ShuttingDown."""
        record, services = context.record, self._services
        began_s = perf_counter()
        try:
            if not services.keys.has_usable_key():
                history = context.ensure_key_history()
                now_s = await services.keys.wait_for_key(history, now_s, ticket.deadline_s - _HOLD_MARGIN_S)
            on_wait = None if context.body_source is None else context.body_source.leave_unread
            admission = services.waiting_room.enter(ticket, now_s, on_wait)
            if admission is not None:
                await admission
        except asyncio.CancelledError:
            services.waiting_room.leave(ticket)
            raise
        finally:
            ended_s = perf_counter()
            record.wait_s += ended_s - began_s
            if record.spans is not None:
                record.spans.append(("", began_s, ended_s, 0, ""))
            if ticket.forecast_s > 0 and not record.attempts and ticket.state is _ADMITTED:
                services.metrics.observe_forecast(ticket.forecast_s, record.wait_s)

    async def _use_permit(self, context: RequestContext, ticket: Ticket, began_s: float) -> Decision:
        """Makes attempts with one permit, relays a final response, and settles the permit, whatever ends it.

        `began_s` is the instant of the grant, by `perf_counter`. Returns the decision to WAIT, RETRY or KEEP; RELAY
        once the response is relayed. Raises an UpstreamError if the decision is to REPORT, or if the response
        breaks off; ConnectionError if the caller is lost.
        """
        services, record, response, judge = self._services, context.record, context.response, self._judge
        outcome, retry_after_s, quota_used_up = _UNUSED, None, False
        try:
            transport = context.request.connection.transport
            has_gone = transport is None or (record.wait_s > _NOTICEABLE_WAIT_S and has_hung_up(transport))
            if has_gone and (context.sharing is None or not context.sharing.is_wanted):
                raise ConnectionResetError("the caller has gone")
            while True:
                use = services.keys.choose_fast() if context.key_history is None else None
                use = use or services.keys.choose(context.ensure_key_history(), ticket.deadline_s - _HOLD_MARGIN_S)
                if use is None:
                    return HOLD_FOR_KEY
                if context.job is not None:
                    await context.job.begin()
                outcome = _FAILED
                try:
                    received = await self._attempt(context, use)
                except UpstreamError as error:
                    if isinstance(error, UpstreamBadReply):
                        start = KeyScrubber(response.forms).feed(error.start)
                        services.unexpected.note_not_http(record.route, record.request_id, error.message, start)
                    decision = judge.of_error(error, context, ticket.deadline_s - self._loop.time())
                    if decision.step is _REPORT:
                        raise
                    return decision
                record.upstream_s = perf_counter() - began_s
                try:
                    decision = judge.of_response(received, context, ticket.deadline_s - self._loop.time())
                    outcome, retry_after_s = decision.outcome, decision.retry_after_s
                    quota_used_up = decision.quota_used_up
                    if received.head.has_advice and outcome is _SERVED:
                        costs, scope = services.page_costs, record.scope
                        unit = REQUESTS if costs is None else costs.unit_of(scope)
                        advice = read_advice(received.head.headers, scope, unit)
                        if advice is not None:
                            services.waiting_room.note_advice(ticket, advice)
                    if decision.step is _KEEP:
                        body = await read_body_start(received.connection)
                        if received.connection.is_complete:
                            examine(context, received._replace(body_start=body), services.unexpected)
                            context.kept = KeptResponse(use, received.head, body, received.connection.trailers)
                            return decision
                        received, decision = received._replace(body_start=body), RELAY_REJECTED
                    if received.head.status >= FIRST_ERROR_STATUS or received.head.content_type not in USUAL_TYPES:
                        received = examine(context, received, services.unexpected)
                    if decision.step is _RELAY:
                        if context.sharing is not None and context.sharing.concerns_others:
                            received = await context.sharing.receive(context, received)
                        record.status = received.head.status
                        lines = self.response_heads.write(context, received.head, received.hint)
                        if not response.begin(received.connection, received.head, lines, received.body_start):
                            # A caller that reads nothing must not keep a place from others.
                            await response.follow(
                                received.connection,
                                lambda: services.waiting_room.pause(ticket, response.abort),
                            )
                            examine_copied(context, received.head, services.unexpected)
                            record.upstream_s = perf_counter() - began_s
                        return decision
                    if decision.step is not _RETRY:
                        context.replay_reason = "throttled" if outcome is _THROTTLED else "key_rejected"
                    if decision.step is not _OTHER_KEY:
                        return decision
                    await read_body_start(received.connection)
                finally:
                    services.client.release(received.connection)
                    if response.echoed:
                        self._note_echo(record)
        finally:
            if context.usage is not None:
                context.usage.end()
            if context.sharing is not None and context.sharing.concerns_others:
                context.sharing.end_attempt(context)
            services.waiting_room.settle(ticket, outcome, retry_after_s, quota_used_up=quota_used_up)

    async def _relay_kept(self, context: RequestContext, ticket: Ticket) -> bool:
        """Relays the 401 that was kept, unless the request must be sent again. Returns whether it is relayed.

        Raises ConnectionError if the caller is lost.
        """
        record, response, kept = context.record, context.response, context.kept
        assert kept is not None
        began_s, context.kept = perf_counter(), None
        deadline_s = ticket.deadline_s - _HOLD_MARGIN_S
        context.replay_reason = "key_rejected"
        ruling = await self._services.keys.wait_for_ruling(kept.use, context.ensure_key_history(), deadline_s)
        record.wait_s += perf_counter() - began_s
        if ruling is not Ruling.RELAY:
            return False
        if context.sharing is not None:
            await context.sharing.receive(context, kept.as_received())
        record.status = kept.head.status
        lines = self.response_heads.write(context, kept.head)
        response.begin(kept, kept.head, lines, kept.body)
        if response.echoed:
            self._note_echo(record)
        return True

    async def _attempt(self, context: RequestContext, use: KeyUse) -> Received:
        """Sends the request once, with the key of `use`, and settles the use.

        The connection must be finished afterwards. Raises an UpstreamError if no response comes, or the error that
        reading the caller's body raised; nothing is left open then.
        """
        services, verdict, spans = self._services, _KEY_UNKNOWN, context.record.spans
        if spans is not None:
            began_s, context.span_id = perf_counter(), new_id()
        if context.sharing is not None and context.sharing.concerns_others:
            context.sharing.begin_attempt(context, use.record.key)
        try:
            connection, head = await services.client.send(self._requests.write(context, use.record.key))
            verdict = verdict_of(head.status)
            if context.usage is not None:
                context.usage.status = head.status
            if spans is not None:
                spans.append((context.span_id, began_s, perf_counter(), head.status, ""))
        except ProxyError as error:
            if spans is not None:
                spans.append((context.span_id, began_s, perf_counter(), 0, error.code))
            raise
        finally:
            history = context.ensure_key_history() if verdict is _KEY_REJECTED else None
            ruling = services.keys.settle(use, verdict, history)
        if head.status == 429:
            return await self._refusals.read(context, connection, head)
        if head.status in RETRIED_STATUSES:
            return Received(connection, head, hint=hint_of(head))
        return Received(connection, head, ruling)

    async def _pause(self, context: RequestContext, pause_s: float, began_s: float) -> None:
        """Waits before a retry of the attempt that began at `began_s`, by `perf_counter`."""
        context.retries += 1
        self._services.metrics.retries.inc()
        await asyncio.sleep(pause_s)
        context.retry_spent_s += perf_counter() - began_s

    def _note_echo(self, record: AccessRecord) -> None:
        self._services.metrics.key_echoes.inc()
        self._log.error("key_echoed", status=record.status, key=record.key, request_id=record.request_id)
