"""Notes the attempts of one request in the usage ledger."""

from nanonets_proxy.request.context import RequestContext
from nanonets_proxy.request.policy import HandlerPolicy
from nanonets_proxy.telemetry.ledger.ledger import Attempt, Ledger


class RequestUsage:
    """The attempts of one request, one after another. Set `status` when a response's head has come."""

    __slots__ = ("_attempt", "_context", "_environment", "_ledger", "_was_sent", "status")

    def __init__(self, ledger: Ledger, policy: HandlerPolicy, context: RequestContext) -> None:
        self._ledger = ledger
        self._environment = policy.log_fields.get("environment", "")
        self._context = context
        self._attempt: Attempt | None = None
        self._was_sent = False
        self.status = 0

    def begin(self) -> None:
        """Notes that the request is being sent. An earlier attempt ends with this."""
        if self._attempt is not None:
            self.end()
        record = self._context.record
        self._attempt = self._ledger.begin(
            self._environment, record.caller, record.method, record.route, is_first=not self._was_sent
        )
        self._was_sent = True

    def end(self) -> None:
        """Notes the result of the attempt, if one is running."""
        attempt, self._attempt = self._attempt, None
        if attempt is None:
            return
        context, status, self.status = self._context, self.status, 0
        request_bytes = len(context.payload) if context.body is None else context.body.received_bytes
        pages = (context.record.pages or 0) if 200 <= status < 300 else 0
        self._ledger.end(attempt, status, request_bytes, context.response.sent_bytes, pages)
