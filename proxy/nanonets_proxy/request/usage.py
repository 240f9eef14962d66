"""Notes the attempts of one request in the usage ledger."""

from nanonets_proxy.request.context import RequestContext
from nanonets_proxy.telemetry.ledger.ledger import Attempt, Ledger


class RequestUsage(Attempt):
    """The attempts of one request, one after another. Set `status` when a response's head has come.

    It holds parts of the request's context, and not the context, which holds it: such a cycle would keep each
    request in memory until Python's next garbage collection.
    """

    __slots__ = ("_body", "_payload", "_record", "_response", "status")

    def __init__(self, ledger: Ledger, environment: str, context: RequestContext) -> None:
        self._record = record = context.record
        # As `Attempt.__init__` does, whose call would take longer.
        self.ledger, self.labels = ledger, (environment, record.caller, record.method, record.route)
        self.requests, self.began_s = 1, None
        self._body, self._payload, self._response = context.body, context.payload, context.response
        self.status = 0

    def end(self) -> None:
        """Notes the result of the attempt, if one is running."""
        if self.began_s is None:
            return
        body, pages, status = self._body, self._record.pages, self.status
        self.status = 0
        if pages is None or not 200 <= status < 300:
            pages = 0
        request_bytes = len(self._payload) if body is None else body.received_bytes
        self.end_with(status, request_bytes, self._response.sent_bytes, pages)
