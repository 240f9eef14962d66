"""Reads the settings in a child, while this process imports the servers, and serves.

`process/settings_reader.py` has the reasons. If the system allows no further process, this process does both, and
keeps the settings code in memory.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from nanonets_proxy.process.inheritance import Inheritance
from nanonets_proxy.process.lean_imports import lean_imports
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

    companion = inheritance.companion
    if companion is None:
        with lean_imports():
            import nanonets_proxy.app.config  # both processes need it
    # Otherwise a command waits for the child, which needs it only after the settings are valid.

    def read(send: "Callable[[Config], int]") -> int:
        return _run(arguments, send, None if companion is None else companion.certain)

    reader = None
    with suppress(OSError):
        reader = SettingsReader(read)
    if companion is not None:
        companion.follow()
    if reader is None:
        return _run(arguments, serve, None)
    # Imports the modules of `serve` while the child reads.
    with lean_imports():
        import nanonets_proxy.process.serve  # noqa: F401  # only loads the module

    config = reader.config()
    return config if isinstance(config, int) else serve(config)


def _run(arguments: Sequence[str], serve: "Callable[[Config], int]", on_certain: Callable[[], None] | None) -> int:
    with lean_imports():
        from nanonets_proxy.cli.commands import run

    return run(arguments, serve, on_certain)
