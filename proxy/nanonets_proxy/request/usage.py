"""Notes the attempts of one request in the usage ledger."""

from nanonets_proxy.request.context import RequestContext
from nanonets_proxy.telemetry.ledger.ledger import Attempt, Ledger


class RequestUsage(Attempt):
    """The attempts of one request, one after another. Set `status` when a response's head has come.

    It holds parts of the request's context, and not the context, which holds it: such a cycle would keep each
    request in memory until Python's next garbage collection.
    """

    __slots__ = ("_body", "_ledger", "_record", "_response", "status")

    def __init__(self, ledger: Ledger, environment: str, context: RequestContext) -> None:
        self._record = record = context.record
        # As `Attempt.__init__` does. Its call would take longer than the rest.
        self.labels = environment, record.caller, record.method, record.route
        self.number, self.requests, self.unfinished = 0, 1, None
        self._ledger, self._response, self.status = ledger, context.response, 0
        self._body = context.payload if context.body is None else context.body

    def begin(self) -> None:
        """Notes that the request is being sent. An earlier attempt ends with this."""
        if self.number:
            self.end()
        self._ledger.begin(self)

    def end(self) -> None:
        """Notes the result of the attempt, if one is running."""
        if not self.number:
            return
        body, status, self.status = self._body, self.status, 0
        request_bytes = len(body) if isinstance(body, bytes) else body.received_bytes
        pages = (self._record.pages or 0) if 200 <= status < 300 else 0
        self._ledger.end(self, status, request_bytes, self._response.sent_bytes, pages)
