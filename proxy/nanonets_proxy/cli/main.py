"""The entry point. It imports only what the command needs, because each command should start soon.

From its first lines, `main` handles SIGTERM and SIGINT. The kernel drops a signal without a handler if this is
process 1 of a container (pid_namespaces(7)), and the container would run until the engine kills it.
"""

import os
import signal
import sys
from collections.abc import Collection, Sequence
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from nanonets_proxy.cli.output import open_standard_files
from nanonets_proxy.process.exit_codes import SIGNAL_BASE, USAGE_ERROR
from nanonets_proxy.process.lean_imports import lean_imports
from nanonets_proxy.process.open_files import lack_of_files

if TYPE_CHECKING:  # an import would cost every command time
    from nanonets_proxy.app.config import Config

_SERVING_COMMANDS = ("serve", "sandbox")
_RUN = "run"
_HELP_FLAGS = frozenset({"-h", "--help", "--version"})
_STOPS = (signal.SIGTERM, signal.SIGINT)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that `argv` names, by default the process's arguments. Returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    ignored = [number for number in _STOPS if signal.getsignal(number) is signal.SIG_IGN]
    _end_by_signals()
    if _runs_command(arguments):
        return _run_command(arguments[1:], ignored)
    if not _serves(arguments):
        with lean_imports():
            from nanonets_proxy.cli.commands import run

        return run(arguments, _no_server)
    if fault := lack_of_files():
        sys.stderr.write(f"nanonets-proxy: {fault}\n")
        return USAGE_ERROR
    open_standard_files()
    from nanonets_proxy.cli.serving import read_and_serve
    from nanonets_proxy.process.inheritance import InheritanceUnusable, inherit

    try:
        inheritance = inherit()
    except InheritanceUnusable as error:
        sys.stderr.write(f"nanonets-proxy: {error}\n")
        return USAGE_ERROR
    return read_and_serve(arguments, inheritance)


def _end_by_signals() -> None:
    """Ends the process silently with 128 + the number at SIGTERM and SIGINT.

    The image blocks both signals until here (Dockerfile, `env --block-signal`), so that none is lost.
    """

    def end(number: int, _: FrameType | None) -> NoReturn:
        os._exit(SIGNAL_BASE + number)

    for stop in _STOPS:
        signal.signal(stop, end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)


def _serves(arguments: Sequence[str]) -> bool:
    """Returns whether the command runs servers. The default command is `serve`."""
    serves = not arguments or arguments[0].startswith("-") or arguments[0] in _SERVING_COMMANDS
    return serves and _HELP_FLAGS.isdisjoint(arguments)


def _runs_command(arguments: Sequence[str]) -> bool:
    """Returns whether this process becomes a command of the user. Flags behind the `--` are the command's."""
    if arguments[:1] != [_RUN]:
        return False
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return _HELP_FLAGS.isdisjoint(own)


def _run_command(arguments: Sequence[str], ignored: Collection[signal.Signals]) -> int:
    from nanonets_proxy.cli.run import run_command

    open_standard_files()
    for number in ignored:  # as for a command in the background of a script, which Ctrl-C must not end
        signal.signal(number, signal.SIG_IGN)
    return run_command(arguments, ignored)


def _no_server(_: "Config") -> int:
    raise AssertionError("this command serves nothing")
