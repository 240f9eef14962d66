"""Where traces and metrics go, and how many."""

from dataclasses import dataclass

from nanonets_proxy.core.net.addresses import Origin


@dataclass(frozen=True, slots=True)
class TracesPolicy:
    """The collector of traces, and the share of the requests without a trace that are sampled."""

    collector: Origin
    share: float


@dataclass(frozen=True, slots=True)
class MetricsPolicy:
    """The collector of metrics, and the time from one export to the next."""

    collector: Origin
    interval_s: float
