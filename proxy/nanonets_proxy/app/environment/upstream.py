"""One environment's connections to the upstream, and the copies of bodies that it may send again."""

from collections.abc import Callable

import structlog

from nanonets_proxy.app.config import EnvironmentConfig
from nanonets_proxy.app.environment.faults import report_dial_failure, report_lost_copy, report_surplus
from nanonets_proxy.app.environment.upstream_health import UpstreamHealth
from nanonets_proxy.telemetry.alerts import Alerts
from nanonets_proxy.upstream.body import BodyBudget, LostCopy
from nanonets_proxy.upstream.client import UpstreamClient
from nanonets_proxy.upstream.dial import Dialer
from nanonets_proxy.upstream.errors import UpstreamError
from nanonets_proxy.upstream.key_probe import DEFAULT_PATH, KeyProbe
from nanonets_proxy.upstream.pool import Pool


class Upstream:
    """The client, its pool and the budget of bodies. Their faults become alerts."""

    def __init__(self, config: EnvironmentConfig, alerts: Alerts, on_retry: Callable[[], None]) -> None:
        self.name = config.upstream_name
        self._alerts = alerts
        self.pool = Pool(
            self._dialer(config),
            keep_alive_s=config.upstream_keep_alive_s,
            per_caller=config.pool_per_caller,
            on_surplus=lambda: report_surplus(alerts, self.name),
        )
        log = structlog.get_logger(**config.handler.log_fields)
        self.client = UpstreamClient(self.pool, first_byte_timeout_s=config.first_byte_timeout_s, on_retry=on_retry)
        self.health = UpstreamHealth(self.client.judge_upstream, alerts, log)
        self.bodies = BodyBudget(config.bodies, self._on_lost_copy)

    def key_probe(self, config: EnvironmentConfig) -> KeyProbe:
        """Returns the probe of keys that a configuration asks for."""
        return KeyProbe(self.client, config.dial.origin, config.key_probe or DEFAULT_PATH)

    def prepare(self, old: EnvironmentConfig, new: EnvironmentConfig) -> Callable[[], None]:
        """Returns a function that applies another configuration, and cannot fail.

        Raises OSError or ValueError if a file cannot be used.
        """
        dialer = None if new.dial == old.dial else self._dialer(new)

        def apply() -> None:
            self.pool.change(dialer, keep_alive_s=new.upstream_keep_alive_s, per_caller=new.pool_per_caller)
            self.client.change_timeout(new.first_byte_timeout_s)
            self.bodies.policy = new.bodies

        return apply

    def close(self) -> None:
        """Closes the connections: the idle ones now, the busy ones when they are given back."""
        self.health.stop()
        self.pool.close()

    def _dialer(self, config: EnvironmentConfig) -> Dialer:
        return Dialer(config.dial, self._on_dial_failure)

    def _on_lost_copy(self, cause: LostCopy, error: OSError | None) -> None:
        report_lost_copy(self._alerts, self.bodies.policy, cause, error)

    def _on_dial_failure(self, error: UpstreamError) -> None:
        report_dial_failure(self._alerts, self.name, error)
