"""Recognises responses that the API did not send, while they are relayed unaltered."""

from dataclasses import replace

from nanonets_proxy.core.api.unexpected import claims_json, may_have_unexpected_body
from nanonets_proxy.core.keys.key_scrubber import KeyScrubber
from nanonets_proxy.request.context import RequestContext
from nanonets_proxy.request.received import Received
from nanonets_proxy.request.response.body_start import MAX_BODY_BYTES, decoded_body
from nanonets_proxy.telemetry.unexpected_responses import UnexpectedResponses
from nanonets_proxy.upstream.response_head import ResponseHead


def examine(
    context: RequestContext, received: Received, unexpected: UnexpectedResponses, *, is_relayed: bool
) -> Received:
    """Reports a response that the API does not send, by the part of its body that has arrived.

    Returns `received` with that part. An error whose JSON is incomplete is copied while it is relayed: call
    `examine_copied` at its end.
    """
    head, record = received.head, context.record
    if not may_have_unexpected_body(record.route, record.method, head.status):
        return received
    body = received.body_start + received.connection.read_nowait()
    is_whole = received.connection.is_complete
    _examine(context, head, body, unexpected, is_whole=is_whole, is_relayed=is_relayed)
    must_copy = is_relayed and not is_whole and head.status >= 400 and claims_json(head.content_type, body)
    context.response.copied = bytearray() if must_copy else None
    return replace(received, body_start=body)


def examine_copied(context: RequestContext, head: ResponseHead, unexpected: UnexpectedResponses) -> None:
    """Reports an error whose JSON is broken, after its end."""
    if copied := context.response.copied:
        _examine(context, head, bytes(copied), unexpected, is_whole=True, is_relayed=True)


def _examine(
    context: RequestContext,
    head: ResponseHead,
    body: bytes,
    unexpected: UnexpectedResponses,
    *,
    is_whole: bool,
    is_relayed: bool,
) -> None:
    decoded = decoded_body(head, body[:MAX_BODY_BYTES])
    is_whole = is_whole and decoded is not None and len(body) < MAX_BODY_BYTES and len(decoded) < MAX_BODY_BYTES
    # The scrubber also holds back a part of the key at the end, whose other part has not arrived.
    scrubber = KeyScrubber(context.response.forms)
    text = scrubber.feed(decoded or b"") + (scrubber.end() if is_whole else b"")
    record = context.record
    request_id = context.response.forms.blank(record.request_id.encode()).decode()
    unexpected.examine(
        *(record.route, request_id, head.status, head.content_type, text),
        is_whole=is_whole,
        is_relayed=is_relayed,
    )
