"""A collector that decodes what it gets by OTLP over HTTP, with OpenTelemetry's own messages."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from nanonets_proxy.core.net.addresses import Origin

if TYPE_CHECKING:
    from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
    from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collector:
    """Keeps the spans and the metrics that it gets. Responds with `status`; 0: never."""

    def __init__(self) -> None:
        self.status = 200
        self.requests: list[str] = []
        self.resources: list[dict[str, Any]] = []
        self.spans: list[Span] = []
        self.exports: list[dict[str, Metric]] = []
        """The metrics of each export by name, those of all resources together."""
        self.origin = Origin("http", "127.0.0.1", 0)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            (length,) = [line.split()[1] for line in head.split("\r\n") if line.startswith("Content-Length:")]
            body = await reader.readexactly(int(length))
            self.requests.append(head)
            if not self.status:
                await reader.read()
                return
            if self.status == 200:
                self._keep(head.split()[1], body)
            writer.write(b"HTTP/1.1 %d X\r\nContent-Length: 2\r\n\r\n{}" % self.status)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def _keep(self, path: str, body: bytes) -> None:
        if path == "/v1/traces":
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                self.resources.append(attributes(resource.resource))
                self.spans += [span for scope in resource.scope_spans for span in scope.spans]
        else:
            assert path == "/v1/metrics"
            metrics: dict[str, Metric] = {}
            for found in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                self.resources.append(attributes(found.resource))
                metrics |= {metric.name: metric for scope in found.scope_metrics for metric in scope.metrics}
            self.exports.append(metrics)


def attributes(item: Any) -> dict[str, Any]:
    """Returns the attributes of a span, resource or data point by their keys."""
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in item.attributes}


@asynccontextmanager
async def running_collector() -> AsyncIterator[Collector]:
    collector = Collector()
    server = await asyncio.start_server(collector.serve, "127.0.0.1", 0)
    collector.origin = Origin("http", "127.0.0.1", server.sockets[0].getsockname()[1])
    try:
        yield collector
    finally:
        server.close()
