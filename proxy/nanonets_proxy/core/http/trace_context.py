"""The trace of a request, as W3C Trace Context says (level 2, https://www.w3.org/TR/trace-context-2/)."""

import re
from typing import Final, NamedTuple

# §3.2.2: version, trace id, parent id and flags, in lower case. No id may be all zeros, and version ff is invalid.
_TRACEPARENT: Final = re.compile(
    rb"[ \t]*+(?!ff)([0-9a-f]{2})-((?!0{32})[0-9a-f]{32})-((?!0{16})[0-9a-f]{16})-([0-9a-f]{2})(-.*)?[ \t]*"
)
# §3.2.2.3: sampled, and random (level 2). §4.3: a flag that this version does not know becomes zero.
_KNOWN_FLAGS: Final = 0b11
NEW_TRACE_FLAGS: Final = 0b11
"""Those of a trace that begins here: sampled, with a random id."""
TRACE_ID_BYTES: Final = 16
RANDOM_SPAN_BYTES, SPAN_NUMBER_BYTES = 6, 2
"""The parts of the ids of the spans of one request: random bytes, and a number, which is 0 for its own span."""
_MOST_SPANS: Final = (1 << 8 * SPAN_NUMBER_BYTES) - 1
_MAX_STATE_BYTES: Final = 512  # §3.3.1.5: at least as much of tracestate should be propagated


class TraceContext(NamedTuple):
    """The trace that a request belongs to, and the caller's span in it."""

    trace_id: str
    """32 hex digits."""
    parent_id: str
    """16 hex digits."""
    flags: int
    """The flags `sampled` (1) and `random` (2)."""
    state: bytes = b""
    """The combined value of tracestate, which other parties fill in."""

    def fields_for(self, span_id: str) -> bytes:
        """Returns traceparent and tracestate for a request of this span, each with its CR LF."""
        parent = b"traceparent: 00-%b-%b-%02x\r\n" % (self.trace_id.encode(), span_id.encode(), self.flags)
        return parent + b"tracestate: %b\r\n" % self.state if self.state else parent


def span_number(number: int) -> bytes:
    """Returns the end of the id of a request's wait or attempt; `number` counts from 1."""
    return min(number, _MOST_SPANS).to_bytes(SPAN_NUMBER_BYTES)


def read_trace_context(traceparent: bytes, tracestate: tuple[bytes, ...]) -> TraceContext | None:
    """Returns the trace of a request; None if traceparent is malformed: then tracestate has no meaning (§3.3)."""
    match = _TRACEPARENT.fullmatch(traceparent)
    if match is None:
        return None
    version, trace_id, parent_id, flags, more = match.groups()
    if more is not None and version == b"00":
        return None
    state = b",".join(filter(None, tracestate)) if tracestate else b""
    return TraceContext(
        trace_id.decode(),
        parent_id.decode(),
        int(flags, 16) & _KNOWN_FLAGS,
        state if len(state) <= _MAX_STATE_BYTES else b"",
    )
