"""The command `check`: tests settings, key and upstream, and reports the result of each test."""

import asyncio
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final

from nanonets_proxy.admission.state_file import write_fault
from nanonets_proxy.core.jobs.lifecycle import JobState
from nanonets_proxy.core.keys.api_key import KeyUnusable
from nanonets_proxy.core.keys.audience import Audience
from nanonets_proxy.core.keys.key_owners import KeyOwners
from nanonets_proxy.core.status.error_advice import RAISE_OPEN_FILES, secret_flag_advice
from nanonets_proxy.keys.files import can_be_read_by_others, os_fault
from nanonets_proxy.keys.source import FileKey, NoKeyGiven
from nanonets_proxy.server.open_files import most_connections, open_files_limit
from nanonets_proxy.settings import LoadedSettings, Settings, SettingsError
from nanonets_proxy.settings.configure import fleet_policy, ignored_proxy_variable
from nanonets_proxy.settings.key_source import key_source_config, secret_flags
from nanonets_proxy.settings.presets import is_default
from nanonets_proxy.settings.sources import flag_name

_MIB: Final = 2**20


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one test. `detail` is its reason. A `warning` is no failure."""

    name: str
    ok: bool
    detail: str
    warning: bool = False


def check_environments(loaded: LoadedSettings[Settings], environ: Mapping[str, str]) -> list[CheckResult]:
    """Returns the results for valid settings: of the settings, then of each environment's key and upstream."""
    settings = loaded.settings
    count = sum(not is_default(source) for source in loaded.sources.values())
    results = [CheckResult("settings", ok=True, detail=f"valid; {count} set, all others have their defaults")]
    if (path := settings.ledger) is not None:
        # Imported here, so that SQLite is loaded only if there is a ledger.
        from nanonets_proxy.telemetry.ledger.reader import open_fault

        fault = open_fault(path)
        detail = f"{path} is writable" if fault is None else f"{path} {fault}"
        results.append(CheckResult("ledger", ok=fault is None, detail=detail))
    for name in secret_flags(loaded):
        detail = f"the flag {flag_name(name)} holds a secret: {secret_flag_advice(name)}"
        results.append(CheckResult("command line", ok=True, detail=detail, warning=True))
    if settings.sandbox:
        results += _check_jobs(settings, "sandbox")
        return [*results, CheckResult("key", ok=True, detail="not needed: the sandbox is served")]
    owners = KeyOwners()
    for name, own in loaded.by_name().items():
        prefix = f"{name}: " if name else ""
        own_results = [
            *_check_spool(own.settings),
            *_check_jobs(own.settings, str(own.settings.upstream)),
            *_check_open_files(own.settings, len(loaded.by_name())),
            *_check_coordination(own.settings, name),
            *_check_environment(own.settings, environ, name, owners),
        ]
        results += [replace(result, name=f"{prefix}{result.name}") for result in own_results]
    return results


def _check_environment(
    settings: Settings, environ: Mapping[str, str], name: str, owners: KeyOwners
) -> Iterator[CheckResult]:
    if (path := settings.state_file) is not None:
        fault = write_fault(path)
        detail = f"{path} is writable" if fault is None else f"{path} cannot be written: {fault}"
        yield CheckResult("state file", ok=fault is None, detail=detail)
    try:
        source = key_source_config(settings, environ, name).find(environ)
        key = source.read()[0].key.bound_to(Audience(settings.upstream, settings.auth))
        owners.add(key)
    except (KeyUnusable, NoKeyGiven, SettingsError) as error:
        yield CheckResult("key", ok=False, detail=str(error))
        return
    # Imported here, so that other commands start without the upstream's client.
    from nanonets_proxy.cli.check_upstream import check_upstream

    mistake = key.mistake()
    yield CheckResult("key", ok=True, detail=key.name if mistake is None else f"{key.name}; warning: it {mistake}")
    if isinstance(source, FileKey) and can_be_read_by_others(source.path):
        detail = f"every user of this machine can read {source.path}: chmod 600 it"
        yield CheckResult("key file", ok=True, detail=detail, warning=True)
    if variable := ignored_proxy_variable(settings, environ):
        detail = f"{variable} is set, but only the setting egress_proxy has an effect"
        yield CheckResult("egress proxy", ok=True, detail=detail, warning=True)
    yield from check_upstream(settings, key, environ)


def _check_spool(settings: Settings) -> Iterator[CheckResult]:
    """Yields a warning if the disk cannot hold as many request bodies as the settings allow."""
    directory = settings.spool_path()
    try:
        free_bytes = shutil.disk_usage(directory).free
    except OSError as error:
        yield CheckResult("spool disk", ok=False, detail=f"{directory} {os_fault(error)}")
        return
    if free_bytes < settings.spool_total:
        free, total = f"{free_bytes // _MIB} MiB", f"{settings.spool_total // _MIB} MiB"
        detail = f"{directory} has {free} free, less than spool_total ({total})"
        yield CheckResult("spool disk", ok=True, detail=detail, warning=True)


def _check_jobs(settings: Settings, upstream: str) -> Iterator[CheckResult]:
    """Yields whether the directory of the jobs can be used, and what it has."""
    if (path := settings.jobs) is None:
        return
    # Imported here, so that SQLite is loaded only if there are jobs.
    from nanonets_proxy.jobs.inspection import inspect_jobs
    from nanonets_proxy.jobs.policy import LEFT_FREE_BYTES, JobsUnusable

    try:
        tally, free_bytes = inspect_jobs(path, upstream)
    except JobsUnusable as fault:
        yield CheckResult("jobs", ok=False, detail=str(fault).removeprefix("jobs: "))
        return
    counts = ", ".join(f"{count} {state}" for state in JobState if (count := tally.jobs.get(state, 0))) or "no jobs"
    free, total = f"{free_bytes // _MIB} MiB", f"{settings.jobs_total // _MIB} MiB"
    detail = f"{path} is writable: {counts}, {tally.bytes // _MIB} of {total} (jobs_total) used, {free} free"
    is_short = free_bytes < settings.jobs_total - tally.bytes + LEFT_FREE_BYTES
    if is_short:
        detail += ": the disk has less room than jobs_total allows"
    yield CheckResult("jobs", ok=True, detail=detail, warning=is_short)


def _check_coordination(settings: Settings, name: str) -> Iterator[CheckResult]:
    """Yields whether the server of the fleet can be used. One that is away is a warning unless it is required."""
    if (policy := fleet_policy(settings, name)) is None:
        return
    # Imported here, so that only a fleet loads its code.
    from nanonets_proxy.admission.fleet.bus.check import check
    from nanonets_proxy.admission.fleet.bus.port import CoordinationUnusable

    try:
        fault = asyncio.run(check(policy))
    except CoordinationUnusable as error:
        yield CheckResult("coordination", ok=False, detail=str(error).removeprefix("coordination: "))
        return
    if fault is None:
        yield CheckResult("coordination", ok=True, detail=f"{policy.address} can be used")
        return
    result = "this proxy would begin alone" + (", and /readyz would say 503" if policy.required else "")
    yield CheckResult(
        "coordination", ok=not policy.required, detail=f"{fault}; {result}", warning=not policy.required
    )


def _check_open_files(settings: Settings, environments: int) -> Iterator[CheckResult]:
    files = open_files_limit(hard=True)
    has_jobs = settings.jobs is not None
    most = most_connections(settings.max_connections, settings.pool_size, files, environments, has_jobs=has_jobs)
    if most < settings.max_connections:
        fewer = f"{files} allow {most} connections, fewer than max_connections ({settings.max_connections})"
        detail = f"{fewer}: {RAISE_OPEN_FILES}"
        yield CheckResult("open files", ok=True, detail=detail, warning=True)


def settings_failures(error: SettingsError) -> list[CheckResult]:
    """Returns one failed result for each problem of the settings."""
    return [CheckResult("settings", ok=False, detail=problem) for problem in error.problems]


def all_ok(results: Sequence[CheckResult]) -> bool:
    """Returns whether every test passed."""
    return all(result.ok for result in results)


def as_text(results: Sequence[CheckResult]) -> str:
    """Returns one line for each result, in columns."""
    width = max(len(result.name) for result in results)
    return "\n".join(f"{_verdict(result):4}  {result.name:{width}}  {result.detail}" for result in results)


def _verdict(result: CheckResult) -> str:
    if not result.ok:
        return "fail"
    return "warn" if result.warning else "ok"


def as_json(results: Sequence[CheckResult]) -> str:
    """Returns `{"ok": bool, "checks": [{"name", "ok", "detail", "warning"}]}`."""
    return json.dumps({"ok": all_ok(results), "checks": [asdict(result) for result in results]}, indent=2)
