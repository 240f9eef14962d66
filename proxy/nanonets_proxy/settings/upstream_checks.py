"""Checks of the settings for the upstream and for copies of bodies: contradictions between them."""

from collections.abc import Iterator
from typing import Final

from nanonets_proxy.core.keys.audience import AuthScheme
from nanonets_proxy.settings.loaded import LoadedSettings
from nanonets_proxy.settings.model.proxy import Settings

_SCHEMES: Final = {"app.nanonets.com": AuthScheme.BASIC, "extraction-api.nanonets.com": AuthScheme.BEARER}
"""Hosts whose scheme is known. With another scheme, they would take the key for something else, and may log it."""


def check_auth(loaded: LoadedSettings[Settings], prefix: str) -> Iterator[str]:
    """Yields a sentence if the upstream is known to take the key in another way."""
    host, auth, sources = loaded.settings.upstream.host, loaded.settings.auth, loaded.sources
    if host in _SCHEMES and auth is not _SCHEMES[host]:
        yield (
            f"{prefix}auth: {host} ({sources['upstream']}) takes {_SCHEMES[host]}, not {auth} ({sources['auth']})"
        )


def check_upstream_and_bodies(loaded: LoadedSettings[Settings], prefix: str) -> Iterator[str]:
    """Yields a sentence for each setting that another one makes useless."""
    settings, sources = loaded.settings, loaded.sources

    def with_source(name: str) -> str:
        return f"{prefix}{name} ({sources[name]})"

    for name in ("egress_proxy", "upstream_pins"):
        if getattr(settings, name) and not settings.upstream.tls:
            yield (
                f"{prefix}{name}: works only with an https upstream ({sources[name]}); "
                f"{with_source('upstream')} is {settings.upstream}"
            )
    for name in ("body_memory_total", "replay_limit"):
        if settings.body_memory > getattr(settings, name):
            yield f"{prefix}body_memory: is larger than {with_source(name)} allows ({sources['body_memory']})"
