"""A response of the upstream, from its head on."""

from dataclasses import dataclass

from nanonets_proxy.core.keys.key_records import Ruling
from nanonets_proxy.core.ratelimit.hints.retry_hint import Hint
from nanonets_proxy.upstream.connection import UpstreamConnection
from nanonets_proxy.upstream.response_head import ResponseHead


# Not frozen: each response makes one, and each field would then cost a call of object.__setattr__.
@dataclass(slots=True)
class Received:
    """A response that has begun. Nothing changes it; `dataclasses.replace` makes another one."""

    connection: UpstreamConnection
    head: ResponseHead
    ruling: Ruling = Ruling.RELAY
    """What the keyring says about a 401."""
    body_start: bytes = b""
    """The part of the body that was read before the decision."""
    hint: Hint | None = None
    """When to come back, according to a response of status 429, 502, 503 or 504."""
