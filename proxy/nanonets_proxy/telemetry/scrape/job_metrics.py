"""The metrics of durable jobs."""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class JobCounts(NamedTuple):
    """The jobs of one environment, of all processes that use its directory."""

    by_state: Mapping[str, int]
    oldest_age_s: float
    """The age of the oldest queued job; 0 without one."""
    bytes: int
    """Disk space of all jobs and their responses."""


class JobMetrics(Collector):
    """Reads the jobs at each scrape."""

    def __init__(self, read: Callable[[], JobCounts]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        counts = self._read()
        jobs = GaugeMetricFamily("nanonets_proxy_jobs", "Stored jobs, by state.", labels=["state"])
        for state, count in counts.by_state.items():
            jobs.add_metric([state], count)
        yield jobs
        yield GaugeMetricFamily(
            "nanonets_proxy_jobs_oldest_queued_seconds",
            "Age of the oldest queued job; 0 if none is queued.",
            value=counts.oldest_age_s,
        )
        yield GaugeMetricFamily(
            "nanonets_proxy_jobs_bytes", "Disk space of jobs and their responses.", value=counts.bytes
        )
