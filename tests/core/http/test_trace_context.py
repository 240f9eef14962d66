"""W3C Trace Context: which traceparent is valid, and what goes upstream."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanonets_proxy.core.http.request_head import RequestHeads
from nanonets_proxy.core.http.trace_context import TraceContext, read_trace_context, span_number

TRACE, PARENT, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "00f067aa0ba902b7"


def traceparent(version: str = "00", trace: str = TRACE, parent: str = PARENT, flags: str = "01") -> bytes:
    return f"{version}-{trace}-{parent}-{flags}".encode()


@pytest.mark.parametrize(
    ("value", "flags"),
    [
        (traceparent(flags="00"), 0),
        (traceparent(flags="01"), 1),
        (traceparent(flags="03"), 3),  # level 2: the trace id is random
        (traceparent(flags="ff"), 3),  # unknown flags become zero
        (b" " + traceparent() + b"\t", 1),
        (traceparent(version="01"), 1),
        (traceparent(version="fe") + b"-more", 1),  # a later version may have more
    ],
)
def test_a_valid_traceparent_is_continued_with_its_known_flags(value: bytes, flags: int) -> None:
    assert read_trace_context(value, ()) == TraceContext(TRACE, PARENT, flags)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"garbage",
        traceparent(version="ff"),
        traceparent(trace="0" * 32),
        traceparent(parent="0" * 16),
        traceparent(trace=TRACE.upper()),
        traceparent(parent=PARENT[:8]),
        traceparent(flags="1"),
        traceparent() + b"-more",
        traceparent(version="01") + b"more",
        traceparent() + b"\n",
    ],
)
def test_a_malformed_traceparent_counts_as_none(value: bytes) -> None:
    assert read_trace_context(value, (b"a=1",)) is None


@pytest.mark.parametrize(
    ("states", "state"),
    [((), b""), ((b"a=1",), b"a=1"), ((b"a=1", b"", b"b=2"), b"a=1,b=2"), ((b"a=" + b"v" * 511,), b"")],
)
def test_tracestate_is_combined_and_bounded(states: tuple[bytes, ...], state: bytes) -> None:
    context = read_trace_context(traceparent(), states)
    assert context is not None
    assert context.state == state


def test_the_fields_for_the_upstream_have_the_new_span() -> None:
    lines = b"traceparent: 00-%b-%b-03\r\n" % (TRACE.encode(), SPAN.encode())
    assert TraceContext(TRACE, PARENT, 3).fields_for(SPAN) == lines
    assert TraceContext(TRACE, PARENT, 3, b"a=1").fields_for(SPAN) == lines + b"tracestate: a=1\r\n"


@given(
    st.binary(min_size=16, max_size=16).filter(any),
    st.binary(min_size=8, max_size=8).filter(any),
    st.integers(0, 3),
)
def test_what_goes_upstream_reads_back_as_the_same_trace(trace: bytes, parent: bytes, flags: int) -> None:
    context = TraceContext(trace.hex(), parent.hex(), flags, b"a=1")
    names, values = zip(*(line.split(b": ") for line in context.fields_for(SPAN).split(b"\r\n")[:-1]), strict=True)
    assert names == (b"traceparent", b"tracestate")
    assert read_trace_context(values[0], values[1:]) == TraceContext(trace.hex(), SPAN, flags, b"a=1")


def test_all_waits_and_attempts_beyond_the_most_have_the_same_number() -> None:
    assert [span_number(number) for number in (1, 65535, 65536)] == [b"\x00\x01", b"\xff\xff", b"\xff\xff"]


def test_two_traceparents_are_none() -> None:
    heads = RequestHeads()
    head = heads.read((b"Host", b"traceparent", b"Traceparent"), (b"localhost", traceparent(), traceparent()))
    assert (head.trace, head.fields) == (None, b"")
