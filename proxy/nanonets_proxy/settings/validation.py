"""Checks of valid settings: contradictions between them, and the files that they name."""

import ssl
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from nanonets_proxy.core.access.caller_names import is_unproven
from nanonets_proxy.core.access.caller_tokens import CallersByToken
from nanonets_proxy.core.net.addresses import Listener, TcpListener
from nanonets_proxy.core.ratelimit.scopes.static_limits import PAGES
from nanonets_proxy.keys.files import os_fault, read_caller_tokens, read_webhook_key
from nanonets_proxy.server.tls import make_listener_context
from nanonets_proxy.settings.errors import SettingsError
from nanonets_proxy.settings.loaded import LoadedSettings
from nanonets_proxy.settings.model.proxy import Settings
from nanonets_proxy.settings.needs import find_missing
from nanonets_proxy.settings.sources import ENVIRONMENTS
from nanonets_proxy.settings.upstream_checks import check_auth, check_upstream_and_bodies

_Owners = dict[Listener | str, Callable[[], str]]
"""For each address and file, a function that returns the setting that named it first, and its source."""
_CREDENTIALS: Final = frozenset({"authorization", "cookie", "proxy-authorization"})


def find_contradictions(
    process: LoadedSettings[Settings], environments: Sequence[tuple[str, LoadedSettings[Settings]]]
) -> Sequence[str]:
    """Returns one sentence for each contradiction.

    `environments` are pairs of name and settings. The only environment has the empty name and the settings of the
    process.
    """
    if not any(_contradictions(process, environments)):
        return []
    return list(_contradictions(process.with_lines(), [(name, own.with_lines()) for name, own in environments]))


def _contradictions(
    process: LoadedSettings[Settings], environments: Sequence[tuple[str, LoadedSettings[Settings]]]
) -> Iterator[str]:
    owners: _Owners = {}
    for name, loaded in environments:
        prefix = f"{ENVIRONMENTS}.{name}." if name else ""
        yield from check_upstream_and_bodies(loaded, prefix)
        yield from check_auth(loaded, prefix)
        yield from _check_fleet(loaded, prefix)
        yield from _check_access(loaded, prefix)
        yield from _check_addresses("listen", prefix, loaded, owners, authenticates=True)
        yield from _check_own_path("state_file", prefix, loaded, owners)
        yield from _check_own_path("jobs", prefix, loaded, owners)
    yield from find_missing(process, environments)
    yield from _check_ledger(process, owners)
    if process.settings.sandbox and environments[0][0]:
        yield f"sandbox: cannot be combined with environments ({process.sources['sandbox']})"
    admin = process.settings.admin_listen
    for name in ("admin_quit", "admin_allow_from", "admin_tokens"):
        if getattr(process.settings, name) and not admin:
            yield (
                f"{name}: needs the admin listener ({process.sources[name]}), but admin_listen is off "
                f"({process.sources['admin_listen']})"
            )
    yield from _check_addresses("admin_listen", "", process, owners, authenticates=False)


def _check_addresses(
    setting: str, prefix: str, loaded: LoadedSettings[Settings], owners: _Owners, *, authenticates: bool
) -> Iterator[str]:
    """Yields a sentence for each address in use, or that other machines can reach although none may call.

    Adds the addresses to `owners`. `authenticates`: the listeners check tokens and certificates, if configured.
    """
    settings, name = loaded.settings, f"{prefix}{setting}"

    def owner() -> str:
        return f"{name} ({loaded.sources[setting]})"

    if authenticates:
        is_open, ways = (
            settings.allow_from or settings.requires_authentication(),
            "allow_from, such as 10.0.0.0/8, or caller_tokens,",
        )
    else:
        is_open, ways = settings.allow_from or settings.admin_allow_from, "admin_allow_from, such as 10.0.0.0/8,"
    for address in getattr(settings, setting):
        if not is_open and not address.is_local:
            yield (
                f"{name}: other machines can reach {address} ({loaded.sources[setting]}), but allow_from "
                f"allows none of them: set {ways} or listen on localhost"
            )
        resources = _exclusive_resources(address)
        if taken := next((resource for resource in resources if resource in owners), None):
            yield f"{name}: {address} is already used by {owners[taken]()}"
        owners.update(dict.fromkeys(resources - owners.keys(), owner))


def _exclusive_resources(address: Listener) -> set[Listener | str]:
    """Returns the addresses or the path that only one listener can use. Port 0 uses none: it takes a free port."""
    if isinstance(address, TcpListener):
        return {*(address.address_pair or (address,))} if address.port else set()
    return {address.path}


def _check_access(loaded: LoadedSettings[Settings], prefix: str) -> Iterator[str]:
    """Yields a sentence for each access setting that contradicts another one."""
    settings, sources = loaded.settings, loaded.sources
    if settings.caller_tokens and settings.caller_tokens_file is not None:
        yield (
            f"{prefix}caller_tokens: {prefix}caller_tokens_file is also set "
            f"({sources['caller_tokens']}, {sources['caller_tokens_file']}); keep one of them"
        )
    if settings.caller_header and settings.requires_authentication():
        yield (
            f"{prefix}caller_header: lets callers choose their own names ({sources['caller_header']}), "
            "but tokens and certificates already name them; remove it"
        )
    elif settings.caller_header.lower() in _CREDENTIALS:
        yield (
            f"{prefix}caller_header: {settings.caller_header} carries credentials, which would be in the log "
            f"({sources['caller_header']}); name another field"
        )
    elif settings.caller_header:
        scoped = [rule for rule in settings.policy if rule.caller is not None]
        for name, is_by_caller in (("daily_budget", bool(settings.daily_budget)), ("policy", bool(scoped))):
            if is_by_caller:
                yield (
                    f"{prefix}{name}: has rules by the caller's name ({sources[name]}), but {prefix}caller_header "
                    f"lets every caller choose its name ({sources['caller_header']}); use caller_tokens instead"
                )
    yield from _check_caller_names(loaded, prefix)
    units = [rule.unit for rule in settings.scopes] + [limit.unit for limit in settings.limits]
    if settings.cost_header and PAGES not in units:
        yield (
            f"{prefix}cost_header: no rule of {prefix}scopes and no limit of {prefix}limits is in pages "
            f"({sources['cost_header']})"
        )


def _check_caller_names(loaded: LoadedSettings[Settings], prefix: str) -> Iterator[str]:
    """Yields a sentence for each setting with a caller that cannot exist: its rule would never apply."""
    settings = loaded.settings
    named: dict[str, list[str | None]] = {
        "policy": [rule.caller for rule in settings.policy],
        "daily_budget": [rule.caller for rule in settings.daily_budget],
        "lane_weights": [name for name, _ in settings.lane_weights],
    }
    for setting, names in named.items():
        unknown = next((name for name in names if name is not None and not _may_exist(name, settings)), None)
        if unknown is not None:
            kinds = (
                "their tokens and certificates name the callers"
                if settings.requires_authentication()
                else "without caller_tokens, callers are named by their address, or as unix:uid=1000"
            )
            yield f"{prefix}{setting}: no caller can have the name {unknown} ({loaded.sources[setting]}): {kinds}"


def _may_exist(name: str, settings: Settings) -> bool:
    """Returns whether a caller may have the name."""
    if not settings.requires_authentication():
        return bool(settings.caller_header) or is_unproven(name)
    if settings.tls_client_ca is not None:  # a certificate may have any name
        return True
    if settings.caller_tokens_file is not None:  # its names may change
        return not is_unproven(name)
    return name in {token.name for token in settings.caller_tokens}


def _check_own_path(name: str, prefix: str, loaded: LoadedSettings[Settings], owners: _Owners) -> Iterator[str]:
    """Yields a sentence if two environments would overwrite each other's file, or send each other's jobs."""
    path = getattr(loaded.settings, name)
    if path is None:
        return
    place = str(path.resolve())  # ./jobs and jobs are the same directory
    if place in owners:
        yield f"{prefix}{name}: {path} is already used by {owners[place]()}"
    owners[place] = lambda: f"{prefix}{name} ({loaded.sources[name]})"


def _check_ledger(process: LoadedSettings[Settings], owners: _Owners) -> Iterator[str]:
    """Yields a sentence if another setting names the same file."""
    path = process.settings.ledger
    if path is not None and (place := str(path.resolve())) in owners:
        yield f"ledger: {path} is already used by {owners[place]()}"


def _check_fleet(loaded: LoadedSettings[Settings], prefix: str) -> Iterator[str]:
    """Yields a sentence for each setting that contradicts coordination."""
    settings, sources = loaded.settings, loaded.sources
    for name in ("state_file", "sandbox"):
        if settings.coordination is not None and getattr(settings, name):
            yield f"{prefix}coordination: cannot be used together with {name} ({sources[name]}); remove one of them"


def verify_files(loaded: LoadedSettings[Settings]) -> None:
    """Checks that the files of the settings are readable and valid, and that the spool directory is writable.

    Raises:
        SettingsError: a file or the directory cannot be used.
    """
    if _file_problems(loaded) and (problems := _file_problems(loaded.with_lines())):
        raise SettingsError(*problems)


def _file_problems(loaded: LoadedSettings[Settings]) -> list[str]:
    problems = [*_webhook_problems(loaded)]
    for name, own in [("", loaded), *loaded.environments.items()]:
        prefix = f"{ENVIRONMENTS}.{name}." if name else ""
        own_problems = (
            *_ca_file_problems(own),
            *_spool_problems(own),
            *_caller_tokens_problems(own),
            *_listener_tls_problems(own),
        )
        problems += [f"{prefix}{problem}" for problem in own_problems]
    return problems


def _ca_file_problems(loaded: LoadedSettings[Settings]) -> Iterator[str]:
    path, source = loaded.settings.ca_file, loaded.sources["ca_file"]
    if path is None:
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cafile=path)
    except ssl.SSLError:
        yield f"ca_file: {path} holds no PEM certificates ({source})"
    except OSError as error:
        yield f"ca_file: {path} {os_fault(error)} ({source})"
    else:
        if not context.cert_store_stats()["x509"]:
            yield f"ca_file: {path} holds no PEM certificates ({source})"


def _spool_problems(loaded: LoadedSettings[Settings]) -> Iterator[str]:
    try:
        path = loaded.settings.spool_path()
        # Permissions alone do not show whether the file system is read-only.
        with tempfile.TemporaryFile(dir=path):
            return
    except OSError as error:
        name = loaded.settings.spool_dir or "the system's temporary directory"
        fault = error.strerror.lower() if error.strerror else "no directory is writable"
        yield f"spool_dir: {name} cannot hold request bodies: {fault} ({loaded.sources['spool_dir']})"


def _caller_tokens_problems(loaded: LoadedSettings[Settings]) -> Iterator[str]:
    path, source = loaded.settings.caller_tokens_file, loaded.sources["caller_tokens_file"]
    if path is not None:
        try:
            CallersByToken(read_caller_tokens(path))
        except ValueError as error:
            yield f"caller_tokens_file: {path} {error} ({source})"


def _webhook_problems(loaded: LoadedSettings[Settings]) -> Iterator[str]:
    path, source = loaded.settings.webhook_secret_file, loaded.sources["webhook_secret_file"]
    if path is not None:
        try:
            read_webhook_key(path)
        except ValueError as error:
            yield f"webhook_secret_file: {path} {error} ({source})"


def _listener_tls_problems(loaded: LoadedSettings[Settings]) -> Iterator[str]:
    if (tls := loaded.settings.listener_tls()) is None:
        return
    sources = loaded.sources
    problems = []
    for name, path, content in (
        ("tls_cert", tls.cert_file, "CERTIFICATE"),
        ("tls_key", tls.key_file, "PRIVATE KEY"),
        ("tls_client_ca", tls.client_ca_file, "CERTIFICATE"),
    ):
        try:
            if path is not None and f"{content}-----".encode() not in path.read_bytes():
                problems.append(f"{name}: {path} holds no PEM {content.lower()} ({sources[name]})")
        except OSError as error:
            problems.append(f"{name}: {path} {os_fault(error)} ({sources[name]})")
    yield from problems
    if problems:
        return
    try:
        make_listener_context(tls)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            yield f"tls_key: {tls.key_file} is not the key of {tls.cert_file} ({sources['tls_key']})"
        else:
            yield (
                f"tls_cert: {tls.cert_file}, its key or its client authorities cannot be used: "
                f"{error.reason or error} ({sources['tls_cert']})"
            )
