"""The command `run`: `nanonets-proxy run [flags] -- CMD [ARG ...]`."""

import os
import signal
import sys
from collections.abc import Collection, Sequence
from typing import Final

from nanonets_proxy.process.exit_codes import USAGE_ERROR
from nanonets_proxy.process.run.become import become
from nanonets_proxy.process.run.companion import Companion
from nanonets_proxy.process.run.quick import is_surely_valid

SEPARATOR: Final = "--"


def run_command(arguments: Sequence[str], ignored_signals: Collection[signal.Signals]) -> int:
    """Starts a proxy, and becomes the command behind the `--`. `arguments` are those behind `run`.

    Returns an exit code only if the command cannot start.
    """
    flags, command = _split(arguments)
    if not command:
        sys.stderr.write(
            "nanonets-proxy: run: needs a command behind --, such as: nanonets-proxy run -- python job.py\n"
        )
        return USAGE_ERROR

    def run_proxy(companion: Companion) -> int:
        from nanonets_proxy.cli.serving import read_and_serve
        from nanonets_proxy.process.inheritance import Inheritance
        from nanonets_proxy.server.inherited import InheritedSockets

        sockets = InheritedSockets([(companion.listener, None)])
        return read_and_serve(["run", *flags], Inheritance(sockets, companion=companion))

    return become(command, run_proxy, is_sure=is_surely_valid(flags, os.environ), ignored_signals=ignored_signals)


def _split(arguments: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    if SEPARATOR not in arguments:
        return arguments, ()
    at = arguments.index(SEPARATOR)
    return arguments[:at], arguments[at + 1 :]
