"""Turns the faults of an environment's parts into alerts, each with advice to the operator."""

from typing import Any, Final

from nanonets_proxy.telemetry.alerts import Alerts
from nanonets_proxy.upstream.body import BodyPolicy, LostCopy

_SINCE_LOST: Final = "; a request without a copy of its body is not sent again after a 429"


def report_lost_copy(alerts: Alerts, policy: BodyPolicy, cause: LostCopy, error: OSError | None) -> None:
    """Reports a request body whose copy was discarded, so that the request cannot be sent again."""
    fields: dict[str, Any]
    if cause is LostCopy.DISK:
        text = "" if error is None else error.strerror or str(error)
        fields = {"spool_dir": str(policy.spool_dir), "error": text}
        advice = f"make room on the disk of {policy.spool_dir}, or set spool_dir{_SINCE_LOST}"
    elif cause is LostCopy.SPOOL_TOTAL:
        fields = {"spool_total_bytes": policy.spool_total_bytes}
        advice = f"raise spool_total{_SINCE_LOST}"
    else:
        fields = {"replay_limit_bytes": policy.replay_limit_bytes}
        advice = f"raise replay_limit{_SINCE_LOST}"
    alerts.report("body_copy_discarded", advice, kind=cause, cause=cause, **fields)
