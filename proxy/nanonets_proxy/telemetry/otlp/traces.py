"""Sends the spans of sampled requests to a collector, in batches, on the event loop.

OpenTelemetry's SDK for Python makes an object with a lock for each span. With release 1.45, the two spans of a
request took 340 us of CPU time, which is more than the proxy takes for the whole request.

States of a sampled request: finished (its access record is kept), encoded (with up to `_ENCODED_TOGETHER` others,
and queued until the collector has responded), and at last sent or dropped.

A collector that is gone or hangs delays nothing: at most `MAX_QUEUED_BYTES` of spans wait for it. Further ones are
dropped and counted. A batch that the collector may want later (429, 502, 503, 504, or no response) is sent again
after a pause, which doubles. At the end of the process, the sender has `STOP_S`, and an event counts what is left.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from random import random
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter

from nanonets_proxy.aio.events import wait_at_most
from nanonets_proxy.core.http.trace_context import TraceContext
from nanonets_proxy.telemetry.alerts import Alerts
from nanonets_proxy.telemetry.otlp.policy import TracesPolicy
from nanonets_proxy.telemetry.otlp.protobuf import request as export_request
from nanonets_proxy.telemetry.otlp.sender import STOP_S, TEMPORARY, CollectorSender, finish
from nanonets_proxy.telemetry.otlp.spans import SpanEncoder, TracedRequest

MAX_QUEUED_BYTES: Final = 8 * 1024 * 1024
_ENCODED_TOGETHER: Final = 32
"""Takes the event loop about 0.1 ms."""
_BATCH_BYTES: Final = 256 * 1024
_BATCH_DELAY_S: Final = 1.0
_FIRST_PAUSE_S, _MAX_PAUSE_S = 1.0, 30.0
_SAMPLED: Final = 1
_ADVICE: Final = "check otlp_endpoint and whether the collector runs; requests are served as before, without traces"

_Chunk = tuple[bytes, int]
"""Encoded spans, and the number of their requests."""


class TraceExporter:
    """Decides which requests are sampled, and sends their spans, from `start()` to `stop()`."""

    def __init__(
        self,
        policy: TracesPolicy,
        encoder: SpanEncoder,
        environment: str,
        registry: CollectorRegistry,
        alerts: Alerts,
        mask: Callable[[bytes], bytes],
    ) -> None:
        """`environment` is empty for the only one.

        `mask` masks secrets and keeps the length: a path or a name may have the key.
        """
        self._share = policy.share
        self._sender = CollectorSender(policy.collector, b"/v1/traces")
        self._encoder = encoder
        self._environment = environment
        self._alerts = alerts
        self._log = structlog.get_logger(**({"environment": environment} if environment else {}))
        self._mask = mask
        self._finished: list[TracedRequest] = []
        self._queue: deque[_Chunk] = deque()
        self._queued_bytes = 0
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._dropped = Counter(
            "nanonets_proxy_traces_dropped",
            "Sampled requests whose spans were dropped, because the collector takes them too slowly or not at all.",
            registry=registry,
        )

    def samples(self, trace: TraceContext | None) -> bool:
        """Returns whether a request is sampled: its caller's trace decides, and chance if there is none."""
        if trace is not None:
            return bool(trace.flags & _SAMPLED)
        return random() < self._share  # noqa: S311 - no secret

    def observe(self, request: TracedRequest) -> None:
        """Queues the spans of a finished request that is sampled. The request must not change any more."""
        finished = self._finished
        finished.append(request)
        if len(finished) >= _ENCODED_TOGETHER:
            self._encode()

    def _encode(self) -> None:
        finished, self._finished = self._finished, []
        if not finished:
            return
        epoch_ns = time.time_ns() - time.perf_counter_ns()
        encode = self._encoder.encode
        spans = self._mask(b"".join([encode(request, epoch_ns) for request in finished]))
        if self._queued_bytes + len(spans) > MAX_QUEUED_BYTES:
            self._dropped.inc(len(finished))
            return
        self._queue.append((spans, len(finished)))
        self._queued_bytes += len(spans)
        if self._queued_bytes >= _BATCH_BYTES:
            self._wake.set()

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Sends what is queued, for at most `STOP_S`, and ends."""
        self._encode()
        self._stopping.set()
        self._wake.set()
        await finish(self._task, STOP_S)
        if dropped := sum(requests for _, requests in self._queue):
            self._dropped.inc(dropped)
            self._log.warning("traces_dropped", collector=str(self._sender.collector), dropped=dropped)

    async def _run(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while not (self._stopping.is_set() and not self._queue):
            if not self._stopping.is_set():
                self._wake.clear()
                if self._queued_bytes < _BATCH_BYTES:
                    await wait_at_most(self._wake, _BATCH_DELAY_S)
                self._encode()
            if not self._queue:
                continue
            batch = self._next_batch()
            body = export_request(self._environment, [spans for spans, _ in batch])
            fault = await self._sender.send(body)
            if fault is None:
                pause_s = _FIRST_PAUSE_S
            else:
                self._alerts.report("traces_not_sent", _ADVICE, collector=str(self._sender.collector), error=fault)
                if self._stopping.is_set():
                    return
                if fault in TEMPORARY:
                    await wait_at_most(self._stopping, pause_s)
                    pause_s = min(2 * pause_s, _MAX_PAUSE_S)
                    continue
                self._dropped.inc(sum(requests for _, requests in batch))
            for spans, _ in batch:
                self._queue.popleft()
                self._queued_bytes -= len(spans)

    def _next_batch(self) -> list[_Chunk]:
        """Returns the first chunks of the queue, which keeps them."""
        batch, size = [], 0
        for chunk in self._queue:
            batch.append(chunk)
            size += len(chunk[0])
            if size >= _BATCH_BYTES:
                break
        return batch
