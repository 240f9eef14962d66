"""Makes the exporter of traces, if a collector is configured."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from nanonets_proxy.app.config import EnvironmentConfig
from nanonets_proxy.telemetry.alerts import Alerts
from nanonets_proxy.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from nanonets_proxy.telemetry.otlp.traces import TraceExporter


def make_tracer(
    config: EnvironmentConfig, metrics: Metrics, alerts: Alerts, mask: Callable[[bytes], bytes]
) -> "TraceExporter | None":
    """Returns the exporter, or None if no collector is configured."""
    if config.traces is None:
        return None
    # Imported here, so that it takes no memory if there is no collector.
    from nanonets_proxy.telemetry.otlp.spans import SpanEncoder
    from nanonets_proxy.telemetry.otlp.traces import TraceExporter

    encoder = SpanEncoder(config.dial.origin, "https" if config.handler.tls else "http")
    return TraceExporter(config.traces, encoder, config.name, metrics.registry, alerts, mask)
