"""The commands. Each returns an exit code (`process/exit_codes.py`), and imports what only itself needs.

For `USAGE_ERROR`, standard error has one line for each fault. `serve` and `sandbox` build a configuration, and pass
it to the function that `main.py` supplies.
"""

import os
import secrets
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from nanonets_proxy.cli.output import CommandFailed, OutputFailed, write
from nanonets_proxy.cli.parser import PROGRAM, Command, Invocation, UsageError, parse
from nanonets_proxy.core.access.caller_tokens import CallerToken
from nanonets_proxy.core.access.token_text import TOKEN_BYTES, make_token
from nanonets_proxy.process.exit_codes import FAILED, OK, SIGNAL_BASE, USAGE_ERROR
from nanonets_proxy.process.lean_imports import lean_imports
from nanonets_proxy.settings import (
    LoadedSettings,
    SandboxSettings,
    Settings,
    SettingsError,
    load_sandbox_settings,
    verify_files,
)

if TYPE_CHECKING:
    from nanonets_proxy.app.config import Config, ServeConfig
    from nanonets_proxy.app.reloading import NewSettings
    from nanonets_proxy.process.settings_rereader import Request

# A reload may send several requests to a store: login, renewal, and the secret itself.
_MAX_REQUESTS_PER_RELOAD: Final = 4


def run(argv: Sequence[str], serve: "Callable[[Config], int]", on_certain: Callable[[], None] | None = None) -> int:
    """Runs the command that `argv` names, and returns the exit code. `Invocation` explains the functions."""
    try:
        command, invocation = parse(_COMMANDS, argv, os.environ, serve)
        return command.run(replace(invocation, on_certain=on_certain))
    except UsageError as error:
        problems: Sequence[str] = (str(error),)
    except SettingsError as error:
        problems = error.problems
    except CommandFailed as error:
        sys.stderr.write(f"{PROGRAM}: {error}\n")
        return FAILED
    except OutputFailed as error:
        if not str(error):
            return SIGNAL_BASE + signal.SIGPIPE  # as for programs that leave SIGPIPE at its default
        sys.stderr.write(f"{PROGRAM}: {error}\n")
        return FAILED
    for problem in problems:
        sys.stderr.write(f"{PROGRAM}: {problem}\n")
    return USAGE_ERROR


def _print(text: str) -> None:
    write(f"{text}\n")


def _serve(invocation: Invocation) -> int:
    return invocation.serve(_checked_config(invocation.load(), invocation.environ))


def _checked_config(loaded: LoadedSettings[Settings], environ: Mapping[str, str]) -> "ServeConfig":
    """Returns the configuration of `serve`. Raises SettingsError, also if a file of the settings is unusable."""
    # Imported here: `run` needs no configuration at first.
    from nanonets_proxy.settings.configure import serve_config

    verify_files(loaded)
    sandbox = load_sandbox_settings({}, environ).settings if loaded.settings.sandbox else None
    return serve_config(loaded, sandbox, environ)


def _run(invocation: Invocation) -> int:
    from nanonets_proxy.cli.run_proxy import run_proxy

    return run_proxy(invocation)


def read_again(request: "Request") -> "NewSettings":
    """Reads the settings of a running proxy again. Raises SettingsError."""
    from nanonets_proxy.app.reloading import NewSettings
    from nanonets_proxy.settings.merge import merge

    _, invocation = parse(_COMMANDS, request.arguments, request.environ, lambda _: OK)
    merged = merge(request.given, invocation.load())
    config = _checked_config(merged.loaded, invocation.environ)
    return NewSettings(config, merged.applied, merged.needs_restart)


def _sandbox(invocation: Invocation) -> int:
    from nanonets_proxy.settings.configure import sandbox_config

    settings = load_sandbox_settings(invocation.flags, invocation.environ).settings
    return invocation.serve(sandbox_config(settings))


def _check(invocation: Invocation) -> int:
    with lean_imports():
        from nanonets_proxy.cli.check import all_ok, as_json, as_text, check_environments, settings_failures

    try:
        loaded = invocation.load()
        verify_files(loaded)
    except SettingsError as error:
        results = settings_failures(error)
    else:
        results = check_environments(loaded, invocation.environ)
    _print(as_json(results) if invocation.parsed.json else as_text(results))
    return OK if all_ok(results) else FAILED


def _config(invocation: Invocation) -> int:
    from nanonets_proxy.settings.reference import effective_toml, json_schema, reference_toml

    chosen = [flag for flag in ("schema", "reference", "changed") if getattr(invocation.parsed, flag)]
    match chosen:
        case ["schema"]:
            write(json_schema())
        case ["reference"]:
            write(reference_toml())
        case [] | ["changed"]:
            write(effective_toml(invocation.load(), only_changed=bool(chosen)))
        case [first, second, *_]:
            raise UsageError(f"--{first} and --{second} exclude each other: each writes another document")
    return OK


def _healthcheck(invocation: Invocation) -> int:
    from nanonets_proxy.cli.admin_client import is_ready
    from nanonets_proxy.cli.reach import admin_address, settings_to_reach

    ready, sentence = is_ready(admin_address(settings_to_reach(invocation)))
    _print(sentence)
    return OK if ready else FAILED


def _reload(invocation: Invocation) -> int:
    from nanonets_proxy.cli.admin_client import TIMEOUT_S, reload
    from nanonets_proxy.cli.reach import admin_address, settings_to_reach
    from nanonets_proxy.process.settings_rereader import TIME_LIMIT_S

    settings = settings_to_reach(invocation)
    timeout_s = TIMEOUT_S + TIME_LIMIT_S + _MAX_REQUESTS_PER_RELOAD * settings.key_timeout
    _print(reload(admin_address(settings), timeout_s))
    return OK


def _restart(invocation: Invocation) -> int:
    from nanonets_proxy.cli.admin_client import TIMEOUT_S, restart
    from nanonets_proxy.cli.reach import admin_address, settings_to_reach
    from nanonets_proxy.process.restart_limits import RESTART_S

    _print(restart(admin_address(settings_to_reach(invocation)), 2 * TIMEOUT_S + RESTART_S))
    return OK


def _status(invocation: Invocation) -> int:
    from nanonets_proxy.cli.reach import admin_address, settings_to_reach
    from nanonets_proxy.cli.status import show, watch

    address = admin_address(settings_to_reach(invocation))
    run_status = watch if invocation.parsed.watch else show
    return run_status(address, as_json=invocation.parsed.json)


def _usage(invocation: Invocation) -> int:
    from nanonets_proxy.cli.ledger.commands import usage

    return usage(invocation)


def _policy_test(invocation: Invocation) -> int:
    from nanonets_proxy.cli.ledger.commands import policy_test

    return policy_test(invocation)


def _token(invocation: Invocation) -> int:
    token = make_token(secrets.token_bytes(TOKEN_BYTES))
    try:
        line = CallerToken.of(invocation.parsed.argument, token)
    except ValueError as error:
        raise UsageError(str(error)) from None
    _print(f"{token}\n{line}")
    sys.stderr.write(
        "Give the first line to the caller; it is stored nowhere. Add the second line to caller_tokens, or to the "
        "file that caller_tokens_file names.\n"
    )
    return OK


_COMMANDS: Final = {
    "serve": Command(
        "serve the Nanonets API to callers (the default command)", Settings, _serve, help_lists_settings=True
    ),
    "run": Command(
        "run a command beside a proxy of its own: with a token instead of the key",
        Settings,
        _run,
        options={"--env": ("NAME", "the environment to use, if the settings have several")},
        usage_end="-- CMD [ARG ...]",
    ),
    "check": Command(
        "test settings, key and connection to the upstream",
        Settings,
        _check,
        switches={"--json": "print the results as JSON"},
    ),
    "sandbox": Command(
        "serve only the simulated Nanonets API", SandboxSettings, _sandbox, help_lists_settings=True
    ),
    "config": Command(
        "show the settings in effect and the source of each",
        Settings,
        _config,
        switches={
            "--changed": "show only the settings that differ from their defaults",
            "--reference": "write all settings with their defaults as a TOML file",
            "--schema": "write the JSON schema of the TOML file",
        },
    ),
    "healthcheck": Command("test whether a running proxy is ready", Settings, _healthcheck),
    "status": Command(
        "show the state of a running proxy: limits, queue, keys, problems",
        Settings,
        _status,
        switches={
            "--watch": "show it again each second, until Ctrl-C",
            "--json": "print the document of GET /status; with --watch, one per line",
        },
    ),
    "token": Command(
        "make a token for the caller NAME, and its entry for caller_tokens",
        None,
        _token,
        argument=("NAME", "the caller's name in rules, budgets, the queue and the log"),
    ),
    "reload": Command("make a running proxy read its settings and keys again now", Settings, _reload),
    "restart": Command(
        "replace a running proxy by a new process, for an upgrade or all settings; no call is lost",
        Settings,
        _restart,
    ),
    "usage": Command(
        "show what was sent to the upstream, from the usage ledger",
        Settings,
        _usage,
        switches={"--json": "print JSON", "--csv": "print CSV"},
        options={
            "--by": ("VIEW", "caller, method, route, status, environment, hour or day (UTC) [caller]"),
            "--since": ("TIME", "7d, 36h, 2w (ago), 2026-11-28 or 2026-11-28T18:00 (UTC), in whole hours [7d]"),
            "--until": ("TIME", "the end of the range, in the same forms [now]"),
            "--env": ("NAME", "only this environment"),
        },
    ),
    "policy test": Command(
        "list past requests that the policy of a settings file would reject, from the ledger",
        Settings,
        _policy_test,
        argument=("FILE", "a settings file with the policy to test, and with the ledger, unless --ledger names it"),
        argument_is_config=True,
        switches={"--json": "print JSON"},
        options={
            "--since": ("TIME", "the beginning of the range, as for `usage` [7d]"),
            "--until": ("TIME", "the end of the range [now]"),
        },
    ),
}
