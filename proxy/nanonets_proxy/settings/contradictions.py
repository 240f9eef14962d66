"""What each value allows by itself, and all of them together do not."""

from collections.abc import Iterator, Sequence

from nanonets_proxy.core.addresses import Listener, TcpListener
from nanonets_proxy.settings.loaded import Loaded
from nanonets_proxy.settings.model import Settings


def contradictions(
    process: Loaded[Settings], environments: Sequence[tuple[str, Loaded[Settings]]]
) -> Iterator[str]:
    """A sentence for each. The only environment has the empty name, and is the process itself."""
    places: dict[Listener | str, str] = {}
    for name, loaded in environments:
        prefix = f"environments.{name}." if name else ""
        yield from _within(loaded, prefix)
        yield from _addresses(f"{prefix}listen", loaded.settings.listen, loaded, loaded.sources["listen"], places)
        yield from _state_file(f"{prefix}state_file", loaded, places)
    if process.settings.sandbox and environments[0][0]:
        yield f"sandbox: does not go with environments ({process.sources['sandbox']})"
    admin = process.settings.admin_listen
    yield from _addresses("admin_listen", admin, process, process.sources["admin_listen"], places)


def _addresses(
    name: str,
    addresses: Sequence[Listener],
    loaded: Loaded[Settings],
    source: str,
    places: dict[Listener | str, str],
) -> Iterator[str]:
    """Notes in `places` who listens where."""
    for address in addresses:
        if not loaded.settings.allow_from and not address.is_local:
            yield (
                f"{name}: {address} can be reached from other machines ({source}), and allow_from "
                "names none that may call: set allow_from, such as 10.0.0.0/8, or listen on 127.0.0.1"
            )
        place = _place(address)
        if place in places:
            yield f"{name}: {address} is taken already by {places[place]}"
        elif place is not None:
            places[place] = f"{name} ({source})"


def _state_file(name: str, loaded: Loaded[Settings], places: dict[Listener | str, str]) -> Iterator[str]:
    """What one environment learned is not for another: each overwrites the file."""
    path = loaded.settings.state_file
    if path is None:
        return
    if str(path) in places:
        yield f"{name}: {path} is taken already by {places[str(path)]}"
    places[str(path)] = f"{name} ({loaded.sources['state_file']})"


def _place(address: Listener) -> Listener | str | None:
    """What two listeners cannot share: None where port 0 gives each its own."""
    if isinstance(address, TcpListener):
        return address if address.port else None
    return address.path


def _within(loaded: Loaded[Settings], prefix: str) -> Iterator[str]:
    settings, sources = loaded.settings, loaded.sources

    def named(name: str) -> str:
        return f"{prefix}{name} ({sources[name]})"

    if settings.egress_proxy is not None and not settings.upstream.tls:
        yield (
            f"{prefix}egress_proxy: is for an https upstream only ({sources['egress_proxy']}); "
            f"{named('upstream')} is {settings.upstream}"
        )
    for name in ("body_memory_total", "replay_limit"):
        if settings.body_memory > getattr(settings, name):
            yield f"{prefix}body_memory: is larger than {named(name)} allows ({sources['body_memory']})"
