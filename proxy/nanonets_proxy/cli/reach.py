"""How a command reaches a running proxy: by the settings of its admin listener."""

import sys

from nanonets_proxy.cli.parser import PROGRAM, Invocation
from nanonets_proxy.core.net.addresses import Listener, TcpListener
from nanonets_proxy.settings import Settings, SettingsError, load_alone


def settings_to_reach(invocation: Invocation) -> Settings:
    """Returns the settings with which a command reaches a running proxy. Raises SettingsError.

    A fault of another setting is only reported: the running proxy still has its earlier settings.
    """
    try:
        return invocation.load().settings
    except SettingsError as error:
        names = frozenset({"admin_listen", "key_timeout"})
        try:
            settings = load_alone(names, invocation.flags, invocation.environ, config=invocation.parsed.config)
        except SettingsError:
            raise error from None
        for problem in error.problems:
            sys.stderr.write(f"{PROGRAM}: {problem}\n")
        return settings


def admin_address(settings: Settings) -> Listener:
    """Returns the admin listener of a running proxy with these settings. Raises SettingsError."""
    if not settings.admin_listen:
        raise SettingsError("admin_listen: is off, so this command cannot reach a running proxy")
    address = settings.admin_listen[0]
    if isinstance(address, TcpListener) and address.port == 0:
        raise SettingsError("admin_listen: is port 0, so this command cannot know the running proxy's port")
    return address
