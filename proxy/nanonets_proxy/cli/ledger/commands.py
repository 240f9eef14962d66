"""The commands that read the usage ledger. Each imports what it needs: other commands start without SQLite."""

import time
from pathlib import Path

from nanonets_proxy.cli.output import CommandFailed, write
from nanonets_proxy.cli.parser import Invocation, UsageError
from nanonets_proxy.process.exit_codes import FAILED, OK
from nanonets_proxy.settings import Settings, SettingsError, load_settings


def usage(invocation: Invocation) -> int:
    """Shows what was sent. Raises UsageError, SettingsError and CommandFailed."""
    from nanonets_proxy.cli.ledger.usage import VIEWS, as_csv, as_json, as_table, read_view
    from nanonets_proxy.telemetry.database_fault import DatabaseFault

    parsed = invocation.parsed
    by = parsed.by or "caller"
    if by not in VIEWS:
        raise UsageError(f"--by: {by!r} is not a view; the views are {', '.join(VIEWS)}")
    if parsed.csv and parsed.json:
        raise UsageError("--csv and --json exclude each other")
    since_h, until_h = _hours(parsed.since, parsed.until)
    try:
        view = read_view(_ledger_path(invocation.load().settings), by, since_h, until_h, parsed.env)
    except DatabaseFault as fault:
        raise CommandFailed(str(fault)) from None
    text = as_csv(view) if parsed.csv else as_json(view) if parsed.json else as_table(view)
    write(f"{text}\n")
    return OK


def policy_test(invocation: Invocation) -> int:
    """Lists what a policy would reject. Raises UsageError, SettingsError and CommandFailed."""
    from nanonets_proxy.cli.ledger.policy_test import as_json, as_text, replay
    from nanonets_proxy.telemetry.database_fault import DatabaseFault

    parsed = invocation.parsed
    if parsed.config is not None:
        raise UsageError("--config: FILE already names the settings file")
    since_h, until_h = _hours(parsed.since, parsed.until)
    loaded = load_settings(invocation.flags, invocation.environ, config=parsed.argument, config_from="FILE")
    by_environment = {name: own.settings for name, own in loaded.by_name().items()}
    try:
        result = replay(_ledger_path(loaded.settings), by_environment, since_h, until_h)
    except DatabaseFault as fault:
        raise CommandFailed(str(fault)) from None
    write(f"{as_json(result) if parsed.json else as_text(result)}\n")
    return FAILED if result.rejected else OK


def _hours(since: str | None, until: str | None) -> tuple[int, int]:
    """Returns the first hour, and the hour after the last one. Raises UsageError."""
    from nanonets_proxy.cli.ledger.usage import hour_of

    now_s, hours = time.time(), []
    for flag, text in (("--since", since or "7d"), ("--until", until or "now")):
        try:
            hours.append(hour_of(text, now_s, is_end=flag == "--until"))
        except ValueError as error:
            raise UsageError(f"{flag}: {error}") from None
    if hours[0] >= hours[1]:
        raise UsageError("--since: is not before --until")
    return hours[0], hours[1]


def _ledger_path(settings: Settings) -> Path:
    if settings.ledger is None:
        raise SettingsError("ledger: is not set, so there is no usage to read; give --ledger PATH")
    return settings.ledger
