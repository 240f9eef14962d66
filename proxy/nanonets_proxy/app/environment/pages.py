"""The pages of one environment's requests: their costs, and the counter that reads uploads."""

import asyncio

from nanonets_proxy.admission.admission import Admission
from nanonets_proxy.app.config import EnvironmentConfig
from nanonets_proxy.app.environment.faults import report_uncounted_pages
from nanonets_proxy.core.ratelimit.scopes.page_costs import PageCosts
from nanonets_proxy.core.ratelimit.scopes.static_limits import REQUESTS
from nanonets_proxy.pages.page_counter import PageCounter, can_count_pages
from nanonets_proxy.request.upload_pages import UploadPages
from nanonets_proxy.telemetry.alerts import Alerts


class Pages:
    """`costs` is None if each request costs 1, and `uploads` is None if nobody counts the pages of uploads."""

    def __init__(self, config: EnvironmentConfig, waiting_room: Admission, alerts: Alerts) -> None:
        self._waiting_room = waiting_room
        self._alerts = alerts
        self._loop = asyncio.get_running_loop()
        self._counter: PageCounter | None = None
        self._starting: asyncio.Task[None] | None = None  # of a counter that a reload has made
        self._parameters: object = None
        self.costs: PageCosts | None = None
        self.uploads: UploadPages | None = None
        self._use(config)

    def _use(self, config: EnvironmentConfig) -> None:
        self._parameters = _parameters(config)
        costs = PageCosts(config.handler.cost_header, config.scopes, config.gate.static_limits.rows)
        self.costs = costs if costs.in_use else None
        if self.costs is not None and self._counter is None:
            if can_count_pages():
                self._counter = PageCounter(self._loop)
            else:
                report_uncounted_pages(self._alerts)
        counter = None if self.costs is None else self._counter
        self.uploads = None if counter is None else UploadPages(counter, costs, self._waiting_room)

    def change(self, config: EnvironmentConfig) -> None:
        """Applies another configuration. A counter that is needed now starts; until then, it knows no pages."""
        counter = self._counter
        if _parameters(config) != self._parameters:
            self._use(config)
        if self._counter is not counter and self._counter is not None:
            self._starting = self._loop.create_task(self._counter.start())

    def unit_of(self, scope: str) -> str:
        """Returns the unit of a scope's limit: requests or pages."""
        return REQUESTS if self.costs is None else self.costs.unit_of(scope)

    async def start(self) -> None:
        """Starts the counter, if there is one."""
        if self._counter is not None:
            await self._counter.start()

    def close(self) -> None:
        """Ends the counter."""
        if self._counter is not None:
            self._counter.close()


def _parameters(config: EnvironmentConfig) -> object:
    return config.handler.cost_header, config.scopes, config.gate.static_limits
