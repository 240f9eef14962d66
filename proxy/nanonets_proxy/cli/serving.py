"""Reads the settings in a child, while this process imports the servers, and serves.

`process/settings_reader.py` has the reasons. If the system allows no further process, this process does both, and
keeps the settings code in memory.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from nanonets_proxy.process.inheritance import Inheritance
from nanonets_proxy.process.lean_imports import lean_imports
from nanonets_proxy.process.run.companion import Companion
from nanonets_proxy.process.settings_reader import SettingsReader

if TYPE_CHECKING:
    from nanonets_proxy.app.config import Config


def read_and_serve(arguments: Sequence[str], inheritance: Inheritance) -> int:
    """Serves what `arguments` say, and returns the exit code."""
    environ = dict(os.environ)  # for reloads and restarts

    def serve(config: "Config") -> int:
        from nanonets_proxy.process.serve import serve
        from nanonets_proxy.process.settings_rereader import SettingsRereader

        if inheritance.companion is not None:
            from nanonets_proxy.process.run.config import beside_command

            config = beside_command(config, inheritance.companion)
        return serve(config, SettingsRereader(arguments, environ), inheritance, environ)

    with lean_imports():
        import nanonets_proxy.app.config  # both processes need it
    companion = inheritance.companion

    def read(send: "Callable[[Config], int]") -> int:
        return _run(arguments, send if companion is None else partial(_send_and_report, send, companion, environ))

    try:
        reader = SettingsReader(read)
    except OSError:
        return _run(arguments, serve)
    if companion is not None:
        companion.follow()
    # Imports the modules of `serve` while the child reads.
    with lean_imports():
        import nanonets_proxy.process.serve  # noqa: F401  # only loads the module

    config = reader.config()
    return config if isinstance(config, int) else serve(config)


def _send_and_report(
    send: "Callable[[Config], int]", companion: Companion, environ: Mapping[str, str], config: "Config"
) -> int:
    """Sends the configuration, and lets the command start now if the proxy is certain to start.

    The serving process cannot do so before its imports have ended, which take longer than the settings.
    """
    from nanonets_proxy.process.run.config import is_certain_to_start

    code = send(config)
    if is_certain_to_start(config, environ):
        companion.certain()
    return code


def _run(arguments: Sequence[str], serve: "Callable[[Config], int]") -> int:
    from nanonets_proxy.cli.commands import run

    return run(arguments, serve)
