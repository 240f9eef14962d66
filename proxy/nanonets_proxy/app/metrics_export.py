"""Makes the exporter of metrics, if a collector is configured."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from nanonets_proxy.app.environment.environment import Environment
from nanonets_proxy.telemetry.otlp.policy import MetricsPolicy

if TYPE_CHECKING:
    from nanonets_proxy.telemetry.otlp.metrics import MetricsExporter


def make_metrics_exporter(
    policy: MetricsPolicy | None,
    environments: Sequence[Environment],
    process: CollectorRegistry,
    mask: Callable[[bytes], bytes],
) -> "MetricsExporter | None":
    """Returns the exporter of the metrics of the process and of each environment; None without a collector."""
    if policy is None:
        return None
    # Imported here, so that it takes no memory if there is no collector.
    from nanonets_proxy.telemetry.otlp.metrics import MetricsExporter, RequestDurations, Source

    sources = [Source("", process, {})]
    for environment in environments:
        durations = RequestDurations()
        environment.metrics.requests.count_durations = durations.count
        sources.append(Source(environment.name, environment.metrics.registry, durations.by_name))
    return MetricsExporter(policy, sources, process, environments[0].alerts, mask)
