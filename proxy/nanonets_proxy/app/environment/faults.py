"""Turns the faults of an environment's parts into alerts, each with advice to the operator."""

import errno
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from nanonets_proxy.app.config import EnvironmentConfig
from nanonets_proxy.core.status.error_advice import RAISE_OPEN_FILES, secret_flag_advice
from nanonets_proxy.keys.files import can_be_read_by_others
from nanonets_proxy.server.open_files import open_files_limit
from nanonets_proxy.telemetry.alerts import Alerts
from nanonets_proxy.upstream.body import LostCopy
from nanonets_proxy.upstream.errors import (
    EgressProxyRefused,
    UpstreamDnsFailed,
    UpstreamError,
    UpstreamTlsCertificate,
    UpstreamTlsCut,
    UpstreamTlsProtocol,
)
from nanonets_proxy.upstream.policy import BodyPolicy

_CREDENTIALS_DEMANDED: Final = 407
_CONSEQUENCE: Final = "; a request without a copy of its body is not sent again after a 429"


def report_lost_copy(alerts: Alerts, policy: BodyPolicy, cause: LostCopy, error: OSError | None) -> None:
    """Reports a request body whose copy was discarded, so that the request cannot be sent again."""
    fields: dict[str, Any]
    if cause is LostCopy.DISK:
        text = "" if error is None else error.strerror or str(error)
        fields = {"spool_dir": str(policy.spool_dir), "error": text}
        no_file = error is not None and error.errno in (errno.EMFILE, errno.ENFILE)
        cure = RAISE_OPEN_FILES if no_file else f"make room on the disk of {policy.spool_dir}, or set spool_dir"
        advice = f"{cure}{_CONSEQUENCE}"
    elif cause is LostCopy.SPOOL_TOTAL:
        fields = {"spool_total_bytes": policy.spool_total_bytes}
        advice = f"raise spool_total{_CONSEQUENCE}"
    else:
        fields = {"replay_limit_bytes": policy.replay_limit_bytes}
        advice = f"raise replay_limit{_CONSEQUENCE}"
    alerts.report("body_copy_discarded", advice, kind=cause, cause=cause, **fields)


def report_dial_failure(alerts: Alerts, upstream: str, error: UpstreamError) -> None:
    """Reports a connection to the upstream that could not be made."""
    if error.details.get("reason") in ("EMFILE", "ENFILE"):
        advice = RAISE_OPEN_FILES
    elif isinstance(error, UpstreamDnsFailed) or error.details.get("during") == "dns":
        advice = "check the name's spelling and this machine's resolver"
    elif isinstance(error, UpstreamTlsCut):
        advice = (
            "check whether a firewall or an egress proxy ends connections to the upstream, and whether the "
            "upstream knows TLS 1.2"
        )
    elif isinstance(error, UpstreamTlsCertificate | UpstreamTlsProtocol):
        advice = (
            "check the host name in upstream, ca_file, upstream_pins, this machine's clock, and whether something "
            "on the way intercepts TLS"
        )
    elif error.details.get("received_status") == _CREDENTIALS_DEMANDED:
        advice = "check the user and the password in egress_proxy: http://USER:PASSWORD@HOST:PORT"
    elif isinstance(error, EgressProxyRefused) or error.details.get("during") == "tunnel":
        advice = "check egress_proxy and the rules of that proxy"
    else:
        advice = "check whether this machine may connect to these addresses, and whether the upstream runs"
    fields = {"upstream": upstream, "error": error.message, **error.details, **error.log_details}
    alerts.report("upstream_connection_failed", advice, kind=error.code, code=error.code, **fields)


def report_settings(
    log: Any, alerts: Alerts, config: EnvironmentConfig, max_connections: int, known: Mapping[str, str]
) -> None:
    """Warns of settings that permit more than their defaults, unless `known` has the same value.

    Also reports that the limit of open files allows only `max_connections`, fewer than the setting, if that is so.
    """
    for setting, value in config.permissive_settings.items():
        if known.get(setting) != value:
            log.warning("boundary_loosened", setting=setting, value=value)
    report_lowered_connections(alerts, config.max_connections, max_connections)


def report_lowered_connections(alerts: Alerts, wanted: int, used: int) -> None:
    """Reports that the limit of open files allows fewer connections than the setting, if that is so."""
    if used < wanted:
        advice, files = f"{RAISE_OPEN_FILES}; or lower max_connections", open_files_limit()
        alerts.report(
            "max_connections_lowered", advice, lasting=True, max_connections=wanted, used=used, open_files=files
        )


def report_exposed_files(alerts: Alerts, paths: Iterable[Path]) -> None:
    """Reports the files with secrets that every user of the machine can read."""
    for path in paths:
        if can_be_read_by_others(path):
            advice = f"let only the proxy's user read it: chmod 600 {path}"
            alerts.report("secret_file_exposed", advice, lasting=True, path=str(path))


def report_secret_flags(alerts: Alerts, settings: Iterable[str]) -> None:
    """Reports the settings whose secret is on the command line."""
    for setting in settings:
        alerts.report(
            "secret_on_command_line", secret_flag_advice(setting), kind=setting, lasting=True, setting=setting
        )


def report_uncounted_pages(alerts: Alerts) -> None:
    """Reports that a limit is in pages, but nothing counts the pages of uploads."""
    advice = (
        "install nanonets-proxy[pages] to count the pages of uploads; until then, a request without cost_header "
        "costs the mean of the pages that callers state in its scope"
    )
    alerts.report("pages_not_counted", advice, lasting=True)


def report_surplus(alerts: Alerts, upstream: str) -> None:
    """Reports that the upstream sent bytes that belong to no request."""
    advice = (
        "such bytes can become the start of another caller's response: report them to the upstream's operator, and "
        "set pool_per_caller; until the next start, the proxy acts as if it were set"
    )
    alerts.report("upstream_spoke_out_of_turn", advice, lasting=True, upstream=upstream)
