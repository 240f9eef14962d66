"""Makes the attempts of a request that has a permit: chooses a key, sends, has the result judged, and relays it.

Each permit is settled once, by `use_permit`, with the outcome of the last decision.
"""

import asyncio
from dataclasses import replace
from time import perf_counter, perf_counter_ns
from typing import Any, Final

from nanonets_proxy.core.api.unexpected import USUAL_TYPES
from nanonets_proxy.core.http.retry import RETRIED_STATUSES
from nanonets_proxy.core.keys.key_records import KeyUse, KeyVerdict, Ruling, verdict_of
from nanonets_proxy.core.keys.key_scrubber import KeyScrubber
from nanonets_proxy.core.ratelimit.hints.rate_limit_fields import read_advice
from nanonets_proxy.core.ratelimit.scopes.static_limits import REQUESTS
from nanonets_proxy.core.ratelimit.tickets import Outcome, Ticket
from nanonets_proxy.errors import ProxyError
from nanonets_proxy.request.access_record import AccessRecord
from nanonets_proxy.request.context import Kept401, RequestContext, Services
from nanonets_proxy.request.judge import (
    HOLD_FOR_KEY,
    KEEP,
    MAY_BE_SENT_AGAIN,
    RELAY_REJECTED,
    REPORT_ERROR,
    SERVED,
    Decision,
    Judge,
    Step,
)
from nanonets_proxy.request.policy import HandlerPolicy
from nanonets_proxy.request.received import Received
from nanonets_proxy.request.response.body_start import hint_of, read_body_start
from nanonets_proxy.request.response.heads import ResponseHeads
from nanonets_proxy.request.response.refusals import Refusals
from nanonets_proxy.request.response.unexpected import examine, examine_copied
from nanonets_proxy.request.upstream_requests import UpstreamRequests
from nanonets_proxy.server.peers import caller_gone, has_hung_up
from nanonets_proxy.upstream.errors import UpstreamBadReply, UpstreamError
from nanonets_proxy.upstream.response_head import ResponseHead

# In Python 3.11, each look-up of a member in its enum costs a call.
_RELAY, _REPORT, _RETRY, _KEEP = Step.RELAY, Step.REPORT, Step.RETRY, Step.KEEP
_WAIT, _OTHER_KEY = Step.WAIT, Step.SEND_WITH_OTHER_KEY
_SERVED = Outcome.SERVED
_KEY_ACCEPTED, _KEY_REJECTED, _KEY_UNKNOWN = KeyVerdict
_RELAYED = Ruling.RELAY
# After a shorter wait, a system call to find out whether the caller is still there is not worth its cost.
_NOTICEABLE_WAIT_S: Final = 0.001
HOLD_MARGIN_S: Final = 0.1
"""A request that is held while no key works is released this long before its deadline: it also needs a permit."""


class Attempts:
    """Makes the attempts of one environment's requests."""

    def __init__(
        self,
        policy: HandlerPolicy,
        services: Services,
        loop: asyncio.AbstractEventLoop,
        response_heads: ResponseHeads,
        refusals: Refusals,
        log: Any,
    ) -> None:
        self._services = services
        self._loop = loop
        self._judge = Judge(services.retries)
        self._response_heads = response_heads
        self._refusals = refusals
        self._requests = UpstreamRequests(policy, services)
        self._log = log

    async def use_permit(self, context: RequestContext, ticket: Ticket, began_s: float) -> Decision:
        """Makes attempts with one permit, relays a final response, and settles the permit, whatever ends it.

        `began_s` is the instant of the grant, by `perf_counter`. Returns the decision to WAIT, RETRY or KEEP; RELAY
        once the response is relayed. Raises an UpstreamError if the decision is to REPORT, or if the response
        breaks off; ConnectionError if the caller is lost.
        """
        services, decision = self._services, HOLD_FOR_KEY
        try:
            transport = context.request.connection.transport
            if (transport is None or (context.record.wait_s > _NOTICEABLE_WAIT_S and has_hung_up(transport))) and (
                context.sharing is None or not context.sharing.is_wanted
            ):
                raise caller_gone()
            while True:
                use = services.keys.choose_fast() if context.key_history is None else None
                use = use or services.keys.choose(context.ensure_key_history(), ticket.deadline_s - HOLD_MARGIN_S)
                if use is None:
                    return HOLD_FOR_KEY
                if context.job is not None:
                    await context.job.begin()
                decision = REPORT_ERROR
                try:
                    received = await self._attempt(context, use)
                except UpstreamError as error:
                    decision = self._judge_error(error, context, ticket)
                    if decision.step is _REPORT:
                        raise
                    return decision
                context.record.upstream_s = perf_counter() - began_s
                try:
                    decision, head = SERVED, received.head
                    # The judge makes the same test. Here it spares the call for most responses.
                    if head.status in MAY_BE_SENT_AGAIN:
                        decision = self._judge_response(received, context, ticket)
                        if decision.step is _KEEP:
                            decision, received = await self._keep(context, use, received)
                    if head.has_advice and decision.outcome is _SERVED:
                        self._note_advice(ticket, head)
                    # A kept 401 is examined when it is relayed.
                    if (head.status >= 400 or head.content_type not in USUAL_TYPES) and decision.step is not _KEEP:
                        is_relayed = decision.step is _RELAY
                        received = examine(context, received, services.unexpected, is_relayed=is_relayed)
                    if decision.step is _RELAY:
                        if context.sharing is not None and context.sharing.concerns_others:
                            received = await context.sharing.receive(context, received)
                        if not self.begin_response(context, received):
                            await self._relay_rest(context, ticket, received, began_s)
                        return decision
                    if decision.step is not _OTHER_KEY:
                        return decision
                    await read_body_start(received.connection)
                finally:
                    services.client.release(received.connection)
                    if context.response.echoed:
                        self.note_echo(context.record)
        finally:
            if context.usage is not None:
                context.usage.end()
            if context.sharing is not None and context.sharing.concerns_others:
                context.sharing.end_attempt(context)
            # A keyword would double the cost of the call.
            services.waiting_room.settle(ticket, decision.outcome, decision.retry_after_s, decision.quota_used_up)

    def _judge_response(self, received: Received, context: RequestContext, ticket: Ticket) -> Decision:
        """Decides on a response. Notes why the request is to be sent again, if it is."""
        decision = self._judge.of_response(received, context, ticket.deadline_s - self._loop.time())
        if decision.step is _RETRY:
            context.failure = f"upstream_{received.head.status}"
        elif decision.step is _WAIT:
            context.replay_reason = "throttled"
        elif decision.step is _OTHER_KEY:
            context.replay_reason = "key_rejected"
        return decision

    def _judge_error(self, error: UpstreamError, context: RequestContext, ticket: Ticket) -> Decision:
        """Decides on an attempt without a response. Reports a response that is no HTTP."""
        if isinstance(error, UpstreamBadReply):
            start, record = KeyScrubber(context.response.forms).feed(error.start), context.record
            self._services.unexpected.note_not_http(record.route, record.request_id, error.message, start)
        decision = self._judge.of_error(error, context, ticket.deadline_s - self._loop.time())
        if decision.step is _RETRY:
            context.failure = error.code
        return decision

    async def _keep(self, context: RequestContext, use: KeyUse, received: Received) -> tuple[Decision, Received]:
        """Keeps a 401 until it is known whether the key of `use` works. Decides to relay one that is too long."""
        body = await read_body_start(received.connection)
        received = replace(received, body_start=body)
        if not received.connection.is_complete:
            return RELAY_REJECTED, received
        context.kept = Kept401(use, received.head, body, received.connection.trailers)
        return KEEP, received

    def _note_advice(self, ticket: Ticket, head: ResponseHead) -> None:
        """Tells the gate what a response says about its limit."""
        costs, scope = self._services.page_costs, ticket.scope
        advice = read_advice(head.headers, scope, REQUESTS if costs is None else costs.unit_of(scope))
        if advice is not None:
            self._services.waiting_room.note_advice(ticket, advice)

    def begin_response(self, context: RequestContext, received: Received) -> bool:
        """Relays the head, and the part of the body that has arrived. Returns whether that is the whole response.

        Raises ConnectionError if the caller is lost.
        """
        context.record.status = received.head.status
        lines = self._response_heads.write(context, received.head, received.hint)
        return context.response.begin(received.connection, received.head, lines, received.body_start)

    async def _relay_rest(
        self, context: RequestContext, ticket: Ticket, received: Received, began_s: float
    ) -> None:
        """Relays the body to its end. Raises an UpstreamError if it breaks off, or ConnectionError."""
        room, response = self._services.waiting_room, context.response
        # A caller that reads nothing must not keep a place from others.
        await response.follow(received.connection, lambda: room.pause(ticket, response.abort))
        examine_copied(context, received.head, self._services.unexpected)
        context.record.upstream_s = perf_counter() - began_s

    async def _attempt(self, context: RequestContext, use: KeyUse) -> Received:
        """Sends the request once, with the key of `use`, and settles the use.

        The connection must be finished afterwards. Raises an UpstreamError if no response comes, or the error that
        reading the caller's body raised; nothing is left open then.
        """
        services, spans = self._services, context.record.spans
        verdict, ruling = _KEY_UNKNOWN, _RELAYED
        if spans is not None:
            began_ns = perf_counter_ns()
        if context.sharing is not None and context.sharing.concerns_others:
            context.sharing.begin_attempt(context, use.record.key)
        try:
            connection, head = await services.client.send(self._requests.write(context, use.record.key))
            # A response of 200 is the usual case, and spares the call.
            verdict = _KEY_ACCEPTED if head.status == 200 else verdict_of(head.status)
            if context.usage is not None:
                context.usage.status = head.status
            if spans is not None:
                spans.append((head.status, "", began_ns, perf_counter_ns()))
        except ProxyError as error:
            if spans is not None:
                spans.append((0, error.code, began_ns, perf_counter_ns()))
            raise
        finally:
            if verdict is not _KEY_ACCEPTED or not services.keys.accept_fast(use):
                history = context.ensure_key_history() if verdict is _KEY_REJECTED else None
                ruling = services.keys.settle(use, verdict, history)
        if head.status == 429:
            return await self._refusals.read(context, connection, head)
        if head.status in RETRIED_STATUSES:
            return Received(connection, head, hint=hint_of(head))
        return Received(connection, head, ruling)

    def note_echo(self, record: AccessRecord) -> None:
        """Counts and logs a response that contained the key."""
        self._services.metrics.key_echoes.inc()
        self._log.error("key_echoed", status=record.status, key=record.key, request_id=record.request_id)
