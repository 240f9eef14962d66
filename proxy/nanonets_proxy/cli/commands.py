"""The command line: which command, with which settings, and what its exit code is.

0: done. 1: a check failed, or the proxy is not healthy. 2: the command line, a setting or the key is wrong;
standard error then has one line for each fault.

What `serve` and `sandbox` come to is a plan; what becomes of it is for `main.py` to say.
"""

import os
import secrets
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import NoReturn

from nanonets_proxy import __version__
from nanonets_proxy.app.config import Config
from nanonets_proxy.cli.check_results import CheckResult, as_json, as_text
from nanonets_proxy.core.access.caller_tokens import TOKEN_BYTES, CallerToken, make_token
from nanonets_proxy.core.keys.api_key import KeyUnusable
from nanonets_proxy.core.net.addresses import Listener, TcpListener
from nanonets_proxy.keys.source import NoKeyGiven
from nanonets_proxy.process.exit_codes import FAILED, OK, USAGE_ERROR
from nanonets_proxy.settings import (
    Loaded,
    SandboxSettings,
    Settings,
    SettingsError,
    load_sandbox_settings,
    load_settings,
    verify_files,
)
from nanonets_proxy.settings.configure import sandbox_config, serve_config
from nanonets_proxy.settings.flags import SettingsFlags
from nanonets_proxy.settings.key_source import key_source_config
from nanonets_proxy.settings.reference import effective_toml, json_schema, reference_toml
from nanonets_proxy.settings.sources import flag_hint, flag_name

PROGRAM = "nanonets-proxy"
_CALLS_OF_A_READING = 4

_DESCRIPTION = """\
A local authenticating reverse proxy for the Nanonets API: it holds the API key, adds it to every
request, and holds callers back while the API's rate limit is used up."""

_EXAMPLES = """\
examples:
  NANONETS_API_KEY=... nanonets-proxy        serve the Nanonets API on 127.0.0.1:8080
  nanonets-proxy serve --sandbox             try it without a key, on a simulated API
  nanonets-proxy check                       are the settings and the key right, is the API reachable?

Every setting is a flag, an environment variable NANONETS_PROXY_... and a line of ./nanonets-proxy.toml.
`nanonets-proxy serve --help` lists the flags, `nanonets-proxy config --reference` all of it as a file."""


class _UsageError(Exception):
    """The command line cannot be understood; the message is one sentence."""


class _Parser(ArgumentParser):
    """A parser that leaves it to `main` to say what is wrong."""

    def error(self, message: str) -> NoReturn:
        raise _UsageError(f"{message}; see `{self.prog} --help`")


@dataclass(frozen=True, slots=True)
class _Command:
    """A command: its line in the list of commands, its settings and what it does."""

    summary: str
    kind: type[Settings | SandboxSettings]
    run: Callable[["_Invocation"], int]
    switches: Mapping[str, str]
    """Flags of its own without a value, and their help."""
    argument: str = ""
    """What stands behind the command, if anything has to."""


@dataclass(frozen=True, slots=True)
class _Invocation:
    """One call of a command."""

    parsed: Namespace
    flags: Mapping[str, object]
    environ: Mapping[str, str]
    serve: Callable[[Config], int]
    """Gives the exit code."""

    def load(self) -> Loaded[Settings]:
        return load_settings(self.flags, self.environ, config=self.parsed.config)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _serve(call: _Invocation) -> int:
    loaded = call.load()
    verify_files(loaded)
    sandbox = load_sandbox_settings({}, call.environ).settings if loaded.settings.sandbox else None
    return call.serve(serve_config(loaded, sandbox, call.environ))


def _sandbox(call: _Invocation) -> int:
    return call.serve(sandbox_config(load_sandbox_settings(call.flags, call.environ).settings))


def _check(call: _Invocation) -> int:
    results = _check_all(call)
    _say(as_json(results) if call.parsed.json else as_text(results))
    return OK if all(result.ok for result in results) else FAILED


def _check_all(call: _Invocation) -> list[CheckResult]:
    try:
        loaded = call.load()
        verify_files(loaded)
    except SettingsError as error:
        return [CheckResult("settings", ok=False, detail=problem) for problem in error.problems]
    settings = loaded.settings
    given = sum(source != "default" for source in loaded.sources.values())
    results = [CheckResult("settings", ok=True, detail=f"{given} given, the rest are defaults")]
    if settings.sandbox:
        return [*results, CheckResult("key", ok=True, detail="none needed: the sandbox is served")]
    for name, own in loaded.by_name().items():
        found = _check_one(call, own.settings, name)
        prefix = f"{name}: " if name else ""
        results += [CheckResult(f"{prefix}{result.name}", ok=result.ok, detail=result.detail) for result in found]
    return results


def _check_one(call: _Invocation, settings: Settings, environment: str) -> list[CheckResult]:
    try:
        key = key_source_config(settings, call.environ, environment).find(call.environ).read()[0].key
    except (KeyUnusable, NoKeyGiven, SettingsError) as error:
        return [CheckResult("key", ok=False, detail=str(error))]
    from nanonets_proxy.cli.check_upstream import (
        run_probe,  # here: other commands start without the upstream's side
    )

    return [CheckResult("key", ok=True, detail=key.name), *run_probe(settings, key)]


def _config(call: _Invocation) -> int:
    if call.parsed.schema and call.parsed.reference:
        raise _UsageError("--schema and --reference do not go together: each writes a file of its own")
    if call.parsed.schema:
        sys.stdout.write(json_schema())
    elif call.parsed.reference:
        sys.stdout.write(reference_toml())
    else:
        sys.stdout.write(effective_toml(call.load()))
    return OK


def _admin_address(settings: Settings, purpose: str) -> Listener:
    """Where a running proxy with these settings can be asked. Raises SettingsError."""
    if not settings.admin_listen:
        raise SettingsError(f"admin_listen: is off, so there is nothing that could be asked {purpose}")
    address = settings.admin_listen[0]
    if isinstance(address, TcpListener) and address.port == 0:
        raise SettingsError("admin_listen: has port 0, and no other process knows which one was taken")
    return address


def _healthcheck(call: _Invocation) -> int:
    from nanonets_proxy.cli.admin_client import is_ready  # here: other commands start without an HTTP client

    ready, sentence = is_ready(_admin_address(call.load().settings, "for its health"))
    _say(sentence)
    return OK if ready else FAILED


def _reload(call: _Invocation) -> int:
    from nanonets_proxy.cli.admin_client import TIMEOUT_S, reload  # as above

    settings = call.load().settings
    # A store is asked more than once at worst: login, renewal, and the secret itself.
    timeout_s = TIMEOUT_S + _CALLS_OF_A_READING * settings.key_timeout
    done, sentence = reload(_admin_address(settings, "to reload"), timeout_s)
    _say(sentence)
    return OK if done else FAILED


def _token(call: _Invocation) -> int:
    token = make_token(secrets.token_bytes(TOKEN_BYTES))
    try:
        line = CallerToken.of(call.parsed.argument, token)
    except ValueError as error:
        raise _UsageError(str(error)) from None
    _say(f"{token}\n{line}")
    sys.stderr.write(
        "The first line is for the caller, and is kept nowhere. The second goes into caller_tokens, or into the "
        "file of caller_tokens_file.\n"
    )
    return OK


_COMMANDS = {
    "serve": _Command("serve the Nanonets API to callers (also without a command)", Settings, _serve, {}),
    "check": _Command(
        "say whether settings, key and upstream are right",
        Settings,
        _check,
        {"--json": "print the results as JSON"},
    ),
    "sandbox": _Command("serve the simulated Nanonets API alone", SandboxSettings, _sandbox, {}),
    "config": _Command(
        "show the settings in effect and where each comes from",
        Settings,
        _config,
        {
            "--reference": "write all settings with their defaults as a TOML file",
            "--schema": "write the JSON schema of the TOML file",
        },
    ),
    "healthcheck": _Command("ask a running proxy whether it is ready", Settings, _healthcheck, {}),
    "token": _Command(
        "make a token for a caller, and the line of the settings that lets it in",
        Settings,
        _token,
        {},
        argument="NAME",
    ),
    "reload": _Command("tell a running proxy to read its keys again now", Settings, _reload, {}),
}


def _root_parser() -> _Parser:
    """The parser of what may stand instead of a command: --help and --version."""
    commands = "\n".join(f"  {name:12} {command.summary}" for name, command in _COMMANDS.items())
    root = _Parser(
        prog=PROGRAM,
        usage=f"{PROGRAM} [command] [flags]",
        description=f"{_DESCRIPTION}\n\ncommands:\n{commands}",
        epilog=_EXAMPLES,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    root.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    return root


def _command_parser(name: str, command: _Command) -> tuple[_Parser, SettingsFlags]:
    """The parser of a command, and what finds the settings among its flags."""
    parser = _Parser(
        prog=f"{PROGRAM} {name}",
        usage=f"{PROGRAM} {name} {command.argument}{' ' if command.argument else ''}[flags]",
        description=f"{command.summary[0].upper()}{command.summary[1:]}.",
        allow_abbrev=False,
    )
    for flag, help_text in command.switches.items():
        parser.add_argument(flag, action="store_true", help=help_text)
    if command.argument:
        parser.add_argument("argument", metavar=command.argument)
    if command.kind is Settings:
        parser.add_argument(
            "--config", metavar="PATH", help="the TOML file to read [./nanonets-proxy.toml if there is one]"
        )
    return parser, SettingsFlags(command.kind, parser)


def _parse(
    argv: Sequence[str], environ: Mapping[str, str], serve: Callable[[Config], int]
) -> tuple[_Command, _Invocation]:
    if argv and argv[0] in ("-h", "--help", "--version"):
        _root_parser().parse_args(argv[:1])  # prints and exits
    name, arguments = ("serve", argv) if not argv or argv[0].startswith("-") else (argv[0], argv[1:])
    if name not in _COMMANDS:
        raise _UsageError(_unknown_command(name))
    command = _COMMANDS[name]
    parser, flags = _command_parser(name, command)
    parsed, unknown = parser.parse_known_args(arguments)
    if unknown:
        own = [*command.switches, "--help", *(["--config"] if command.kind is Settings else [])]
        raise _UsageError(_unknown_arguments(unknown, [*map(flag_name, command.kind.model_fields), *own]))
    return command, _Invocation(parsed, flags.values(parsed), environ, serve)


def _unknown_command(name: str) -> str:
    # Only a name that is nearly right is shown: another may be a key that slipped in here.
    if nearest := get_close_matches(name, _COMMANDS, n=1):
        return f"{name}: no such command; did you mean {nearest[0]}?"
    return f"the first argument is no command; the commands are {', '.join(_COMMANDS)}"


def _unknown_arguments(unknown: Sequence[str], flags: Sequence[str]) -> str:
    """One sentence for the first that is wrong. A value is never shown: it may be a key."""
    for argument in unknown:
        if argument.startswith("-"):
            flag = argument.partition("=")[0]
            return f"{flag}: no such flag; {flag_hint(flag, flags)}"
    return "an argument is neither a flag nor the value of one; flags start with --, a command comes first"


def run(argv: Sequence[str], serve: Callable[[Config], int]) -> int:
    """Runs the command that `argv` names; gives the exit code. `serve` takes what is to be served."""
    try:
        command, call = _parse(argv, os.environ, serve)
        return command.run(call)
    except _UsageError as error:
        problems: Sequence[str] = (str(error),)
    except SettingsError as error:
        problems = error.problems
    for problem in problems:
        sys.stderr.write(f"{PROGRAM}: {problem}\n")
    return USAGE_ERROR
