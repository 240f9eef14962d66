"""Reports responses that the API does not send, as alerts: an event and a count for each kind."""

from collections.abc import Callable
from typing import Any, Final

import orjson

from nanonets_proxy.core.api.unexpected import (
    BROKEN_JSON,
    HTML,
    NOT_HTTP,
    OTHER_TYPE,
    claims_json,
    sample,
    unexpected_type,
)
from nanonets_proxy.telemetry.alerts import Alerts

EVENT: Final = "unexpected_response"
_ADVICE: Final = {
    HTML: "look for a captive portal, an egress proxy or a CDN that responds in the API's place; the start of the "
    "page may name its sender",
    OTHER_TYPE: "check that upstream names the API, and that nothing in between responds in its place",
    BROKEN_JSON: "tell Nanonets, with the request_id; callers that parse this error fail",
    NOT_HTTP: "check the scheme and the port of upstream, and that nothing in between responds in its place",
}


class UnexpectedResponses:
    """Reports the unexpected responses of one environment."""

    def __init__(self, alerts: Alerts, on_foreign: Callable[[], None]) -> None:
        """Calls `on_foreign` for each response to a caller that something else than the API seems to have sent."""
        self._alerts = alerts
        self._on_foreign = on_foreign

    def examine(
        self,
        route: str,
        request_id: str,
        status: int,
        content_type: bytes | None,
        body: bytes,
        *,
        is_whole: bool,
        is_relayed: bool,
    ) -> None:
        """Reports the response if its type is unexpected, or if it is an error whose JSON is broken.

        `body` is the decoded body without secrets, or its start if it is not whole. A response that is not relayed,
        because the request is sent again, is an alert too.
        """
        kind = unexpected_type(route, content_type, body)
        if kind is None and is_whole and status >= 400 and body:
            kind = BROKEN_JSON if claims_json(content_type, body) and not _is_json(body) else None
        if kind is not None:
            if is_relayed and kind != BROKEN_JSON:  # a defect of the API itself
                self._on_foreign()
            type_text = None if content_type is None else sample(content_type)
            self._report(kind, body, status=status, content_type=type_text, route=route, request_id=request_id)

    def note_not_http(self, route: str, request_id: str, error: str, start: bytes) -> None:
        """Reports bytes that are no HTTP response; `start` is their start without secrets."""
        self._on_foreign()
        self._report(NOT_HTTP, start, error=error, route=route, request_id=request_id)

    def _report(self, kind: str, start: bytes, **fields: Any) -> None:
        self._alerts.report(EVENT, _ADVICE[kind], kind=kind, what=kind, **fields, start=sample(start))


def _is_json(body: bytes) -> bool:
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return True
