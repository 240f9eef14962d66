"""How a command reaches a running proxy: by the settings of its admin listener."""

import sys
from typing import Final

from nanonets_proxy.cli.parser import PROGRAM, Invocation
from nanonets_proxy.core.net.addresses import Listener, TcpListener
from nanonets_proxy.settings import Settings, SettingsError, load_alone

_UNREACHED: Final = (
    "admin_listen: cannot be known because of the errors above, so no proxy was asked: correct them, or give the "
    "running proxy's address with --admin-listen"
)


def settings_to_reach(invocation: Invocation) -> Settings:
    """Returns the settings with which a command reaches a running proxy. Raises SettingsError.

    A fault of another setting is only reported: the running proxy still has its earlier settings. `admin_listen`
    must be certain, as its default may be the address of another proxy. `key_timeout` may then have its default.
    """
    try:
        return invocation.load().settings
    except SettingsError as error:
        settings = _read_alone(invocation, "admin_listen", "key_timeout") or _read_alone(invocation, "admin_listen")
        if settings is None:
            if any(problem.startswith("admin_listen: ") for problem in error.problems):
                raise
            raise SettingsError(*error.problems, _UNREACHED) from None
        for problem in error.problems:
            sys.stderr.write(f"{PROGRAM}: {problem}\n")
        return settings


def _read_alone(invocation: Invocation, *names: str) -> Settings | None:
    """Returns settings of which only `names` are read; None if a fault concerns one of them."""
    try:
        return load_alone(names, invocation.flags, invocation.environ, config=invocation.parsed.config)
    except SettingsError:
        return None


def admin_address(settings: Settings) -> Listener:
    """Returns the admin listener of a running proxy with these settings. Raises SettingsError."""
    if not settings.admin_listen:
        raise SettingsError("admin_listen: is off, so this command cannot reach a running proxy")
    address = settings.admin_listen[0]
    if isinstance(address, TcpListener) and address.port == 0:
        raise SettingsError("admin_listen: is port 0, so this command cannot know the running proxy's port")
    return address
