"""Builds the durable jobs of one environment, if it has any, and ties them to its other parts."""

import asyncio
import time
from typing import TYPE_CHECKING

from nanonets_proxy.app.config import EnvironmentConfig
from nanonets_proxy.app.environment.gate_view import GateView
from nanonets_proxy.core.jobs.lifecycle import JobState
from nanonets_proxy.core.status.document import JobsStatus, Usage
from nanonets_proxy.request.authorizer import Authorizer
from nanonets_proxy.request.context import Services
from nanonets_proxy.request.ports import JobTaker
from nanonets_proxy.telemetry.alerts import Alerts
from nanonets_proxy.telemetry.metrics import Metrics
from nanonets_proxy.telemetry.scrape.job_metrics import JobCounts, JobMetrics

if TYPE_CHECKING:
    from nanonets_proxy.jobs import jobs


class EnvironmentJobs:
    """Without the setting `jobs`, every method does nothing."""

    def __init__(self, config: EnvironmentConfig, view: GateView, alerts: Alerts, metrics: Metrics) -> None:
        self._jobs: jobs.Jobs | None = None
        self._log_fields = config.handler.log_fields
        if (policy := config.jobs) is None:
            return
        # Imported here: most processes have no jobs, and need no SQLite.
        from nanonets_proxy.jobs.jobs import Jobs

        now_s = asyncio.get_running_loop().time
        self._jobs = Jobs(
            policy,
            alerts,
            lambda scope, units: view.forecast_s(scope, units, now_s()),
            config.upstream_name,
            self._log_fields,
        )
        metrics.registry.register(JobMetrics(self._counts))

    def endpoint(self, config: EnvironmentConfig, authorizer: Authorizer | None) -> JobTaker | None:
        """Returns what handles the requests of callers; None without jobs."""
        if self._jobs is None:
            return None
        from nanonets_proxy.jobs.endpoint import JobEndpoint

        return JobEndpoint(self._jobs, config.handler.body_times, authorizer, self._log_fields)

    def use(self, config: EnvironmentConfig, services: Services) -> None:
        """Sends the jobs that begin from now on as callers' requests are sent."""
        if self._jobs is not None:
            from nanonets_proxy.jobs.runner import JobServices

            self._jobs.use(JobServices(config.handler, services))

    async def start(self) -> None:
        """Opens the store. Raises JobsUnusable."""
        if self._jobs is not None:
            await self._jobs.start()

    async def drain(self, timeout_s: float) -> None:
        """Leaves the queued jobs to the next process, and lets the others end within a time."""
        if self._jobs is not None:
            await self._jobs.drain(timeout_s)

    async def stop(self) -> None:
        if self._jobs is not None:
            await self._jobs.stop()

    def status(self) -> JobsStatus | None:
        """Returns the numbers of jobs; None without jobs."""
        if self._jobs is None:
            return None
        counts, policy = self._counts(), self._jobs.policy
        of = counts.by_state.get
        return JobsStatus(
            queued=Usage(of("queued", 0), policy.max_unfinished),
            sending=of("sending", 0),
            done=of("done", 0),
            failed=of("failed", 0),
            unknown=of("unknown", 0),
            oldest_queued_s=round(counts.oldest_age_s),
            bytes=Usage(counts.bytes, policy.max_bytes),
        )

    def _counts(self) -> JobCounts:
        assert self._jobs is not None
        tally = self._jobs.tally
        age_s = 0.0 if tally.oldest_s is None else max(0.0, time.time() - tally.oldest_s)
        return JobCounts({str(state): tally.jobs.get(state, 0) for state in JobState}, age_s, tally.bytes)
