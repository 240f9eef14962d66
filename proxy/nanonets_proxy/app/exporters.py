"""Makes the senders of alerts and of metrics, if receivers are configured."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from nanonets_proxy.app.environment.environment import Environment
from nanonets_proxy.app.environment.faults import report_exposed_files
from nanonets_proxy.keys.files import read_webhook_key, shown_path
from nanonets_proxy.telemetry.otlp.policy import MetricsPolicy
from nanonets_proxy.telemetry.webhook.policy import WebhookPolicy

if TYPE_CHECKING:
    from nanonets_proxy.telemetry.otlp.metrics import MetricsExporter
    from nanonets_proxy.telemetry.webhook.sender import Webhook


class WebhookUnusable(Exception):
    """The secret of the signatures cannot be read. The message is one sentence."""


def make_webhook(
    policy: WebhookPolicy | None,
    environments: Sequence[Environment],
    registry: CollectorRegistry,
    redact: Callable[[bytes], bytes],
) -> "Webhook | None":
    """Returns a sender that gets the alerts of all environments; None if no receiver is configured.

    Raises:
        WebhookUnusable: the secret file cannot be used.
    """
    if policy is None:
        return None
    # Imported here, so that it takes no memory if there is no receiver.
    from nanonets_proxy.telemetry.webhook.sender import Webhook

    key, alerts = None, environments[0].alerts
    if (path := policy.secret_file) is not None:
        try:
            key = read_webhook_key(path)
        except ValueError as error:
            raise WebhookUnusable(f"webhook_secret_file: {shown_path(path)} {error}") from None
        report_exposed_files(alerts, [path])
    webhook = Webhook(policy.url, key, registry, alerts, redact)
    for environment in environments:
        environment.alerts.subscribe(partial(webhook.queue, environment=environment.name))
    return webhook


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
