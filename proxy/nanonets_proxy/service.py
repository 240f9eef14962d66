"""The life of a serving process: logging, signals, start, drain, exit code.

SIGTERM and SIGINT drain and end with 0, a second one ends at once; SIGHUP reads the key again.
"""

import asyncio
import gc
import os
import resource
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog
import uvloop
from aiohttp import http_parser, web

from nanonets_proxy import __version__
from nanonets_proxy.allocator import keep_freed_memory
from nanonets_proxy.app import KeyInUse, Program, Proxy
from nanonets_proxy.core.addresses import Origin, TcpListener
from nanonets_proxy.core.api_key import ApiKey
from nanonets_proxy.downstream.listeners import ListenFailed, describe, open_sockets
from nanonets_proxy.hardening import leave_no_core, stay_in_memory
from nanonets_proxy.keys.source import EnvironmentKey
from nanonets_proxy.sandbox.policy import make_key
from nanonets_proxy.settings import SandboxSettings, Settings
from nanonets_proxy.telemetry.log import configure
from nanonets_proxy.telemetry.redaction import Redactor

_OK: Final = 0
_WRONG_USE: Final = 2
_KILLED_BY: Final = 128  # and the signal's number: how a shell tells such an end
_SANDBOX_STOP_S: Final = 1.0
_ALL_INTERFACES: Final = ("0.0.0.0", "[::]")  # noqa: S104 - compared, not bound


@dataclass(frozen=True, slots=True)
class Environment:
    """One named environment of a process, or the only one, whose name is empty."""

    name: str
    settings: Settings
    key: KeyInUse


def serve(settings: Settings, environments: Sequence[Environment]) -> int:
    """Serves the upstreams of the environments until a signal; gives the exit code. `settings` are those of
    the process."""
    return _run(settings.log_format, settings.log_level, lambda redactor: _serve(settings, environments, redactor))


def serve_with_sandbox(settings: Settings, sandbox: SandboxSettings) -> int:
    """Serves the embedded sandbox in the upstream's place: no key is needed, nothing leaves the machine."""
    return _run(
        settings.log_format, settings.log_level, lambda redactor: _serve_with_sandbox(settings, sandbox, redactor)
    )


def serve_sandbox(settings: SandboxSettings) -> int:
    """Serves the sandbox alone, which wants its key like the real API."""
    return _run("auto", "info", lambda _: _serve_sandbox(settings))


def _run(log_format: str, level: str, main: Callable[[Redactor], Coroutine[Any, Any, None]]) -> int:
    if http_parser.HttpRequestParser is http_parser.HttpRequestParserPy:
        # Its checks of framing are weaker, and an intermediary's must not be.
        sys.stderr.write("nanonets-proxy: aiohttp lacks its compiled parser here; unset AIOHTTP_NO_EXTENSIONS\n")
        return _WRONG_USE
    _raise_open_files_limit()
    keep_freed_memory()
    leave_no_core()
    stay_in_memory()
    redactor = Redactor()
    writer = configure(log_format, level, sys.stdout.buffer, redactor)
    try:
        uvloop.run(main(redactor))
    except ListenFailed as error:
        sys.stderr.write(f"nanonets-proxy: {error}\n")
        return _WRONG_USE
    finally:
        writer.close()
    return _OK


async def _serve(settings: Settings, environments: Sequence[Environment], redactor: Redactor) -> None:
    proxies = []
    for environment in environments:
        own = environment.settings
        if own.egress_proxy is not None:
            redactor.add(own.egress_proxy.secrets())
        proxies.append(Proxy(environment.name, own, own.upstream, environment.key, redactor.add))
    await _until_stopped(Program(settings, proxies), settings, _stop_signals())


async def _serve_with_sandbox(settings: Settings, sandbox: SandboxSettings, redactor: Redactor) -> None:
    stopping = _stop_signals()
    key = make_key()
    runner, addresses = await _start_sandbox(sandbox, (key,), [TcpListener("127.0.0.1", 0)])
    host, _, port = addresses[0].rpartition(":")
    source = EnvironmentKey(ApiKey.parse(key, "sandbox"))
    proxy = Proxy("", settings, Origin("http", host, int(port)), KeyInUse(source, source.read()), redactor.add)
    try:
        await _until_stopped(
            Program(settings, [proxy]), settings, stopping, on_start=lambda: _announce_sandbox(proxy)
        )
    finally:
        await runner.cleanup()


async def _until_stopped(
    program: Program, settings: Settings, stopping: asyncio.Event, on_start: Callable[[], None] | None = None
) -> None:
    loop = asyncio.get_running_loop()
    reloads: set[asyncio.Task[None]] = set()  # the loop itself holds tasks only weakly

    def reload() -> None:
        task = loop.create_task(program.reload())
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    loop.add_signal_handler(signal.SIGHUP, reload)
    await program.start()
    for proxy in program.proxies:
        named = {"environment": proxy.name} if proxy.name else {}
        structlog.get_logger().info(
            "started",
            version=__version__,
            listen=proxy.addresses,
            admin_listen=program.admin_addresses,
            upstream=proxy.upstream,
            key=proxy.keeper.name,
            **named,
        )
    if on_start is not None:
        on_start()
    _spare_the_collector()
    await stopping.wait()
    await program.stop(settings.drain_timeout)


async def _serve_sandbox(settings: SandboxSettings) -> None:
    stopping = _stop_signals()
    keys = settings.api_keys or (make_key(),)
    runner, addresses = await _start_sandbox(settings, keys, settings.listen)
    structlog.get_logger().info("sandbox_started", listen=addresses, limit=str(settings.limit or "none"))
    sys.stderr.write(f"A simulated Nanonets API. Its documentation: {_url(addresses[0])}/\n")
    if not settings.api_keys:
        # Made a moment ago, for this process alone: no secret, but useless unless it is shown.
        sys.stderr.write(f"Its key: {keys[0]}\n  curl -u {keys[0]}: {_url(addresses[0])}/api/v4/workflows\n")
    try:
        await stopping.wait()
    finally:
        await runner.cleanup()


async def _start_sandbox(
    settings: SandboxSettings, keys: Sequence[str], listeners: Sequence[Any]
) -> tuple[web.AppRunner, list[str]]:
    from nanonets_proxy.sandbox.app import create_app  # here: most processes never serve it

    sockets = open_sockets("listen", listeners)
    runner = web.AppRunner(
        create_app(settings.policy(tuple(keys))), access_log=None, shutdown_timeout=_SANDBOX_STOP_S
    )
    await runner.setup()
    addresses = [describe(sock) for sock in sockets]
    for sock in sockets:
        await web.SockSite(runner, sock).start()
    return runner, addresses


def _announce_sandbox(proxy: Proxy) -> None:
    url = _url(proxy.addresses[0])
    sys.stderr.write(
        "\n"
        "  *** SANDBOX: a simulated Nanonets API. No key, no cost, nothing leaves this machine. ***\n"
        "\n"
        f"  Try it:        curl {url}/api/v4/workflows\n"
        f"  What it does:  {url}/\n"
        "  The real API:  set NANONETS_API_KEY or NANONETS_API_KEY_FILE and start again\n"
        "\n"
    )


def _url(address: str) -> str:
    """What to give curl. All interfaces are no address to call: localhost is one of them, in a container too."""
    if address.startswith("unix:"):
        return f"--unix-socket {address[5:]} http://localhost"
    host, _, port = address.rpartition(":")
    return f"http://{'localhost' if host in _ALL_INTERFACES else host}:{port}"


def _stop_signals() -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT; the second ends the process."""
    stopping = asyncio.Event()

    def on_signal(number: int) -> None:
        if stopping.is_set():
            os._exit(_KILLED_BY + number)
        stopping.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    return stopping


def _spare_the_collector() -> None:
    """What is here now lives as long as the process, and a request leaves no cycles: by default the collector would
    walk over all that is under way every few requests, for a fifteenth of all CPU time. With 10,000 callers the
    objects under way come and go by more than 10,000 at a time, and a walk takes 0.1 s."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(30_000)


def _raise_open_files_limit() -> None:
    """Each waiting caller is an open file; the usual soft limit of 1,024 is meant for select()."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
