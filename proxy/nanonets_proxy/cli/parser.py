"""Parses the command line: one parser for each command, and one sentence for each mistake."""

import re
from argparse import SUPPRESS, ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Final, NoReturn

from nanonets_proxy import __version__
from nanonets_proxy.cli.output import write
from nanonets_proxy.settings import LoadedSettings, SandboxSettings, Settings, load_settings
from nanonets_proxy.settings.flags import SettingsFlags, named_settings
from nanonets_proxy.settings.sources import flag_hint, flag_name

if TYPE_CHECKING:  # an import would delay the command of `run`
    from nanonets_proxy.app.config import Config

PROGRAM: Final = "nanonets-proxy"

_DESCRIPTION: Final = """\
A local authenticating reverse proxy for the Nanonets API. It adds the API key to every request,
and queues requests while the API's rate limit is used up."""

_EXAMPLES: Final = """\
examples:
  NANONETS_API_KEY=... nanonets-proxy        serve the Nanonets API on localhost:8080
  nanonets-proxy serve --sandbox             try the proxy without a key, on a simulated API
  nanonets-proxy run -- python job.py        run a program that must not see the key
  nanonets-proxy check                       test settings, key and connection

Every setting is a flag, an environment variable NANONETS_PROXY_..., and a line of ./nanonets-proxy.toml.
`nanonets-proxy serve --help` lists the flags. `nanonets-proxy config --reference` writes all settings as
a file."""


# What argparse says about a flag without its value, and with one too many, which it shows although it may be a key.
_ABOUT_VALUE: Final = re.compile(
    r"argument (?:-\w/)?(?P<flag>--[\w-]+)[/, \w-]*: "
    r"((?P<needs>expected one argument)|ignored explicit argument .*)",
    re.DOTALL,
)
_HELP: Final = frozenset({"-h", "--help"})
_MORE_FLAGS: Final = f"This command takes the flags of all settings too. `{PROGRAM} serve --help` lists them."
_FORMS: Final = (
    "A DURATION is a number of seconds, or 500ms, 30s, 5m, 1h. A SIZE is a number of bytes, or 512KiB, 64MiB, 1GB. "
    "Lists have commas, or repeat the flag."
)


class UsageError(Exception):
    """The command line is wrong. The message is one sentence for the user."""


@dataclass(frozen=True, slots=True)
class Invocation:
    """One run of a command. `serve` runs the servers and returns the exit code."""

    arguments: Sequence[str]
    """Those behind the command's name."""
    parsed: Namespace
    flags: Mapping[str, object]
    environ: Mapping[str, str]
    serve: "Callable[[Config], int]"
    on_certain: Callable[[], None] | None = None
    """`run` calls it before `serve`, if its proxy is certain to start."""

    def load(self) -> LoadedSettings[Settings]:
        """Returns the proxy's settings. Raises SettingsError."""
        return load_settings(self.flags, self.environ, config=self.parsed.config)


@dataclass(frozen=True, slots=True)
class Command:
    """A command: its summary for `--help`, the kind of its settings, and the function that runs it."""

    summary: str
    settings_kind: type[Settings | SandboxSettings] | None
    """None: the command uses no settings, and has no flags for them."""
    run: Callable[[Invocation], int]
    """Returns the exit code."""
    switches: Mapping[str, str] = field(default_factory=dict)
    """The command's own flags, which take no value, and their help texts."""
    options: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """The command's own flags that take a value: the name of the value, and the help text."""
    argument: tuple[str, str] | None = None
    """The name and the help text of the command's required argument, if it has one."""
    argument_is_config: bool = False
    """The argument names the settings file, so neither the help nor an error recommends `--config`."""
    usage_end: str = ""
    """What follows the flags in the usage line."""
    help_lists_settings: bool = False
    """Otherwise the help names `serve --help`, which lists them."""

    @property
    def has_config(self) -> bool:
        """Whether the flag `--config` names the settings file."""
        return self.settings_kind is Settings and not self.argument_is_config

    @property
    def own_flags(self) -> list[str]:
        """The flags besides those of the settings."""
        return [*self.switches, *self.options, "--help", *(["--config"] if self.has_config else [])]


class _Parser(ArgumentParser):
    """A parser that raises UsageError instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        if fault := _ABOUT_VALUE.fullmatch(message):
            needs = "needs a value" if fault["needs"] else "takes no value"
            message = f"{fault['flag']}: {needs}"
        raise UsageError(f"{message}; see `{self.prog} --help`")

    def _print_message(self, message: str, file: Any = None) -> None:  # noqa: ARG002 - ArgumentParser's
        """Overrides a method of ArgumentParser, which would end in a traceback if the output cannot be written."""
        write(message)


def parse(
    commands: Mapping[str, Command],
    argv: Sequence[str],
    environ: Mapping[str, str],
    serve: "Callable[[Config], int]",
) -> tuple[Command, Invocation]:
    """Returns the command that `argv` names, by default `serve`, and its invocation.

    Raises:
        UsageError: the command or a flag is unknown, or a flag lacks its value.
        SystemExit: `argv` asks for help or the version, which is printed.
    """
    if argv and argv[0] in ("-h", "--help", "--version"):
        _root_parser(commands).parse_args(argv[:1])  # prints and exits
    name, arguments = _command_and_arguments(argv, commands)
    command = commands[name]
    parser, flags = _command_parser(name, command, arguments)
    # Since Python 3.13, argparse prints the help for `-hTEXT`, and ends the process, before it rejects the TEXT.
    if any(word.startswith("-h") and word != "-h" for word in takewhile("--".__ne__, arguments)):
        parser.error("--help: takes no value")
    parsed, unknown = parser.parse_known_args(arguments)
    if unknown:
        if command.settings_kind is None:
            parser.error(_unknown_arguments(unknown, command.own_flags).rpartition("; ")[0])
        known = [*map(flag_name, command.settings_kind.model_fields), *command.own_flags]
        raise UsageError(_unknown_arguments(unknown, known))
    return command, Invocation(arguments, parsed, flags.values(parsed) if flags else {}, environ, serve)


def _command_and_arguments(argv: Sequence[str], commands: Mapping[str, Command]) -> tuple[str, Sequence[str]]:
    """Returns the name of the command, which may have two words, and the arguments behind it. Raises UsageError."""
    if not argv or argv[0].startswith("-"):
        return "serve", argv
    if (two_words := " ".join(argv[:2])) in commands:
        return two_words, argv[2:]
    name, arguments = argv[0], argv[1:]
    if name not in commands and arguments[:1] and arguments[0] in _HELP:  # such as `policy --help`
        name = next((known for known in commands if known.startswith(f"{name} ")), name)
    if name not in commands:
        raise UsageError(_unknown_command(name, commands))
    return name, arguments


def _root_parser(commands: Mapping[str, Command]) -> _Parser:
    """Returns the parser for `--help` and `--version` without a command."""
    table = "\n".join(f"  {name:12} {command.summary}" for name, command in commands.items())
    root = _Parser(
        prog=PROGRAM,
        usage=f"{PROGRAM} [command] [flags]",
        description=f"{_DESCRIPTION}\n\ncommands:\n{table}",
        epilog=_EXAMPLES,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    root.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    return root


def _command_parser(name: str, command: Command, arguments: Sequence[str]) -> tuple[_Parser, SettingsFlags | None]:
    takes_hidden_flags = command.settings_kind is not None and not command.help_lists_settings
    parser = _Parser(
        prog=f"{PROGRAM} {name}",
        usage=" ".join(
            filter(None, (PROGRAM, name, command.argument and command.argument[0], "[flags]", command.usage_end))
        ),
        description=f"{command.summary[0].upper()}{command.summary[1:]}.",
        epilog=_MORE_FLAGS if takes_hidden_flags else _FORMS if command.help_lists_settings else None,
        allow_abbrev=False,
    )
    for flag, help_text in command.switches.items():
        parser.add_argument(flag, action="store_true", help=help_text)
    for flag, (metavar, help_text) in command.options.items():
        parser.add_argument(flag, metavar=metavar, help=help_text)
    if command.argument:
        name_of_argument, help_text = command.argument
        parser.add_argument("argument", metavar=name_of_argument, help=help_text)
    if command.settings_kind is Settings:
        help_text = "TOML file with settings [./nanonets-proxy.toml if it exists]"
        parser.add_argument("--config", metavar="PATH", help=help_text if command.has_config else SUPPRESS)
    if command.settings_kind is None:
        return parser, None
    if command.help_lists_settings and not _HELP.isdisjoint(arguments):
        return parser, SettingsFlags(command.settings_kind, parser)
    names = named_settings(command.settings_kind, arguments)
    flags = SettingsFlags(command.settings_kind, parser, names) if names else None
    return parser, flags


def _unknown_command(name: str, commands: Mapping[str, Any]) -> str:
    # The message shows only a name that resembles a command: any other text may be a key.
    if nearest := get_close_matches(name, commands, n=1):
        return f"{name}: unknown command; did you mean {nearest[0]}?"
    return f"the first argument is not a command; the commands are {', '.join(commands)}"


def _unknown_arguments(unknown: Sequence[str], flags: Sequence[str]) -> str:
    """Returns a sentence about the first unknown flag. It never shows a value, which may be a key."""
    for argument in unknown:
        if argument.startswith("-"):
            flag = argument.partition("=")[0]
            return f"{flag}: unknown flag; {flag_hint(flag, flags)}"
    return "an argument is neither a flag nor the value of a flag; flags start with --, and a command comes first"
