"""The proxy of the command `run`: reads its settings, and lets the user's command start once they are valid."""

from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from typing import Final

from nanonets_proxy.cli.parser import Invocation, UsageError
from nanonets_proxy.core.keys.api_key import KeyUnusable
from nanonets_proxy.core.keys.audience import Audience
from nanonets_proxy.keys.source import BoundSource, NoKeyGiven
from nanonets_proxy.process.run.quick import PYTHON_PARSER
from nanonets_proxy.process.run.remembered import digest_of, remember
from nanonets_proxy.settings import LoadedSettings, Settings, load_sandbox_settings, verify_files
from nanonets_proxy.settings.key_source import key_source_config
from nanonets_proxy.settings.loaded import are_valid_by_text
from nanonets_proxy.settings.sources import flag_name

_WITHOUT_EFFECT: Final = {
    "listen": "whose proxy listens on a free port",
    "admin_listen": "whose proxy has no admin listener",
    "state_file": "because a state file belongs to one proxy",
    "jobs": "because a job may outlast the command",
}


def run_proxy(invocation: Invocation) -> int:
    """Runs the command. Raises UsageError or SettingsError."""
    for name, reason in _WITHOUT_EFFECT.items():
        if name in invocation.flags:
            raise UsageError(f"{flag_name(name)}: has no effect on `run`, {reason}")
    environ = invocation.environ
    digest = digest_of(invocation.arguments, environ)
    loaded, chosen = invocation.load(), invocation.parsed.env
    names = ", ".join(loaded.environments)
    if chosen is None and names:
        raise UsageError(f"the settings have several environments: choose one with --env ({names})")
    if chosen is not None and chosen not in loaded.environments:
        raise UsageError(f"--env: is no environment of the settings; they have {names or 'none'}")
    verify_files(loaded)
    sandbox = load_sandbox_settings({}, environ).settings if loaded.settings.sandbox else None
    is_unchanged = digest == digest_of(invocation.arguments, environ)
    if digest is not None and is_unchanged and are_valid_by_text(loaded):
        remember(digest, environ)  # before the command starts, because its end also ends this process
    if invocation.on_certain is not None and is_certain_to_start(loaded, chosen or "", environ):
        invocation.on_certain()
    from nanonets_proxy.settings.configure import serve_config  # imported here: the command need not wait for it

    config = serve_config(loaded, sandbox, environ)
    return invocation.serve(
        replace(config, environments=tuple(own for own in config.environments if own.name == (chosen or "")))
    )


def is_certain_to_start(loaded: LoadedSettings[Settings], name: str, environ: Mapping[str, str]) -> bool:
    """Returns whether the proxy of the environment `name` starts, as far as valid settings and the key tell.

    False: only the start itself can tell, because it asks a store of keys, a command, or the servers of a fleet, or
    because the key is unusable, or this Python lacks what the proxy needs.
    """
    if environ.get(PYTHON_PARSER) or (loaded.settings.ledger is not None and find_spec("_sqlite3") is None):
        return False
    if loaded.settings.sandbox:
        return True
    own = loaded.by_name()[name].settings
    sources = key_source_config(own, environ, name)
    if own.coordination is not None or sources.stores:
        return False
    try:
        BoundSource(sources.find(environ), Audience(own.upstream, own.auth)).read()
    except (KeyUnusable, NoKeyGiven):
        return False
    return True
