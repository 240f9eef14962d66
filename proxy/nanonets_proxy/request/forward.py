"""Forwards a request: waits for a permit, and has it used until there is a response.

A request is in one of these states:

    WAITING    has a ticket at the gate, and no permit
      a permit is granted                          -> ADMITTED
      queue full, deadline passed, shutting down   -> ended: the error becomes the response
      the caller hangs up                          -> ended: the ticket is withdrawn
    ADMITTED   has a permit; attempts.py makes one attempt after another with it, judged by judge.py
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

Each permit is settled once: by `Attempts.use_permit`, or by `WaitingRoom.leave` if the task is cancelled before it
runs on.
"""

import asyncio
from time import perf_counter

import structlog

from nanonets_proxy.core.http.priority import urgency
from nanonets_proxy.core.keys.key_records import Ruling
from nanonets_proxy.core.ratelimit.tickets import DEFAULT_URGENCY, Ticket, TicketState
from nanonets_proxy.errors import RateLimited
from nanonets_proxy.request.attempts import HOLD_MARGIN_S, Attempts
from nanonets_proxy.request.context import RequestContext, Services, UploadPlace
from nanonets_proxy.request.judge import Step
from nanonets_proxy.request.policy import HandlerPolicy
from nanonets_proxy.request.response.heads import ResponseHeads
from nanonets_proxy.request.response.refusals import Refusals
from nanonets_proxy.request.response.unexpected import examine
from nanonets_proxy.request.usage import RequestUsage

# In Python 3.11, each look-up of a member in its enum costs a call.
_RELAY, _RETRY, _KEEP = Step.RELAY, Step.RETRY, Step.KEEP
_ADMITTED = TicketState.ADMITTED


class Forwarder:
    """Forwards the requests of one environment."""

    def __init__(self, policy: HandlerPolicy, services: Services, loop: asyncio.AbstractEventLoop) -> None:
        self._policy = policy
        self._services = services
        self._loop = loop
        self._environment = policy.log_fields.get("environment", "")
        log = structlog.get_logger(**policy.log_fields)
        self.response_heads = ResponseHeads(policy, services.origin, services.keys.reason_of_401)
        self._refusals = Refusals(services, self.response_heads, log)
        self._attempts = Attempts(policy, services, loop, self.response_heads, self._refusals, log)

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
                decision = await self._attempts.use_permit(context, ticket, began_s)
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
                now_s = await services.keys.wait_for_key(history, now_s, ticket.deadline_s - HOLD_MARGIN_S)
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
                record.spans.append((None, "", int(began_s * 1e9), int(ended_s * 1e9)))
            if ticket.forecast_s > 0 and not record.attempts and ticket.state is _ADMITTED:
                services.metrics.observe_forecast(ticket.forecast_s, record.wait_s)

    async def _relay_kept(self, context: RequestContext, ticket: Ticket) -> bool:
        """Relays the 401 that was kept, unless the request must be sent again. Returns whether it is relayed.

        Raises ConnectionError if the caller is lost.
        """
        record, kept = context.record, context.kept
        assert kept is not None
        began_s, context.kept = perf_counter(), None
        deadline_s = ticket.deadline_s - HOLD_MARGIN_S
        context.replay_reason = "key_rejected"
        ruling = await self._services.keys.wait_for_ruling(kept.use, context.ensure_key_history(), deadline_s)
        record.wait_s += perf_counter() - began_s
        if ruling is not Ruling.RELAY:
            return False
        received = examine(context, kept.as_received(), self._services.unexpected, is_relayed=True)
        if context.sharing is not None:
            await context.sharing.receive(context, received)
        self._attempts.begin_response(context, received)
        if context.response.echoed:
            self._attempts.note_echo(record)
        return True

    async def _pause(self, context: RequestContext, pause_s: float, began_s: float) -> None:
        """Waits before a retry of the attempt that began at `began_s`, by `perf_counter`."""
        context.retries += 1
        self._services.metrics.retries.inc()
        await asyncio.sleep(pause_s)
        context.retry_spent_s += perf_counter() - began_s
