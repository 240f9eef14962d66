"""What each value allows by itself, and all of them together do not."""

from collections.abc import Iterator, Sequence

from nanonets_proxy.core.net.addresses import Listener, TcpListener
from nanonets_proxy.settings.loaded import Loaded
from nanonets_proxy.settings.model.proxy import Settings


def contradictions(
    process: Loaded[Settings], environments: Sequence[tuple[str, Loaded[Settings]]]
) -> Iterator[str]:
    """A sentence for each. The only environment has the empty name, and is the process itself."""
    places: dict[Listener | str, str] = {}
    for name, loaded in environments:
        prefix = f"environments.{name}." if name else ""
        yield from _within(loaded, prefix)
        yield from _callers(loaded, prefix)
        source = loaded.sources["listen"]
        yield from _addresses(f"{prefix}listen", loaded.settings.listen, loaded, source, places, or_tokens=True)
        yield from _state_file(f"{prefix}state_file", loaded, places)
    if process.settings.sandbox and environments[0][0]:
        yield f"sandbox: does not go with environments ({process.sources['sandbox']})"
    admin = process.settings.admin_listen
    source = process.sources["admin_listen"]
    yield from _addresses("admin_listen", admin, process, source, places, or_tokens=False)


def _addresses(
    name: str,
    addresses: Sequence[Listener],
    loaded: Loaded[Settings],
    source: str,
    places: dict[Listener | str, str],
    *,
    or_tokens: bool,
) -> Iterator[str]:
    """Notes in `places` who listens where. `or_tokens`: callers that prove who they are may come from anywhere."""
    settings = loaded.settings
    is_open = settings.allow_from or (or_tokens and settings.requires_authentication())
    for address in addresses:
        if not is_open and not address.is_local:
            ways = "allow_from, such as 10.0.0.0/8," + (" or caller_tokens," if or_tokens else "")
            yield (
                f"{name}: {address} can be reached from other machines ({source}), and allow_from "
                f"names none that may call: set {ways} or listen on 127.0.0.1"
            )
        place = _place(address)
        if place in places:
            yield f"{name}: {address} is taken already by {places[place]}"
        elif place is not None:
            places[place] = f"{name} ({source})"


def _callers(loaded: Loaded[Settings], prefix: str) -> Iterator[str]:
    """What is given by half would be off, or mean nothing."""
    settings, sources = loaded.settings, loaded.sources
    for name, other in (
        ("tls_cert", "tls_key"),
        ("tls_key", "tls_cert"),
        ("tls_client_ca", "tls_cert"),
    ):
        if getattr(settings, name) is not None and getattr(settings, other) is None:
            yield f"{prefix}{name}: needs {prefix}{other} beside it ({sources[name]})"
    has_tokens = bool(settings.caller_tokens or settings.caller_tokens_file)
    if settings.caller_tokens and settings.caller_tokens_file is not None:
        yield (
            f"{prefix}caller_tokens: and {prefix}caller_tokens_file are both set "
            f"({sources['caller_tokens']}, {sources['caller_tokens_file']}); keep one of them"
        )
    if settings.caller_token_header and not has_tokens:
        source = sources["caller_token_header"]
        yield f"{prefix}caller_token_header: needs caller_tokens or caller_tokens_file ({source})"
    if settings.caller_header and settings.requires_authentication():
        yield (
            f"{prefix}caller_header: lets callers choose their names ({sources['caller_header']}), "
            "which tokens and certificates are there to prove; leave it out"
        )
    if settings.policy_dry_run and not (settings.policy or settings.read_only or settings.daily_budget):
        yield f"{prefix}policy_dry_run: there is no policy to try ({sources['policy_dry_run']})"
    if settings.upstream_pins and not settings.upstream.tls:
        yield f"{prefix}upstream_pins: are for an https upstream only ({sources['upstream_pins']})"


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
