"""The life of a serving process: logging, start, signals, drain, exit code.

SIGTERM or SIGINT stops the program (its states: `app/program.py`), and the process ends with 0. A second signal
ends the process at once with 128 + its number. So does a signal before the event loop runs (`cli/main.py`). SIGHUP
reloads the settings and the keys. SIGUSR2 replaces the process by a new one (`restart.py`).
"""

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, BinaryIO, Final, cast

import structlog
import uvloop
from aiohttp import http_parser, web

from nanonets_proxy import __version__
from nanonets_proxy.admission.fleet.bus.port import CoordinationUnusable
from nanonets_proxy.app.config import Config, EnvironmentConfig, SandboxConfig, ServeConfig
from nanonets_proxy.app.environment.environment import Environment
from nanonets_proxy.app.exporters import WebhookUnusable
from nanonets_proxy.app.program import Program, SettingsReload
from nanonets_proxy.app.reloading import ReadSettings
from nanonets_proxy.app.shutdown import Shutdown
from nanonets_proxy.app.usage_ledger import UsageLedger
from nanonets_proxy.core.keys.api_key import ApiKey, KeyUnusable
from nanonets_proxy.core.keys.key_owners import KeyOwners
from nanonets_proxy.core.net.addresses import Origin, is_every_interface
from nanonets_proxy.jobs.policy import JobsUnusable
from nanonets_proxy.keys.source import BoundSource, EnvironmentKey, InitialKeys, NoKeyGiven
from nanonets_proxy.process.allocator import keep_freed_memory
from nanonets_proxy.process.exit_codes import FAILED, OK, SIGNAL_BASE, USAGE_ERROR
from nanonets_proxy.process.hardening import forget_variables, lock_memory, prevent_core_dump
from nanonets_proxy.process.inheritance import Inheritance
from nanonets_proxy.process.lifecycle import Lifecycle, Start
from nanonets_proxy.process.prompt_exit import exit_soon
from nanonets_proxy.process.successor.messages import PeerLost
from nanonets_proxy.server.listeners import BACKLOG, ListenFailed, describe, open_sockets
from nanonets_proxy.server.server import AiohttpMismatch
from nanonets_proxy.telemetry.log import configure, use
from nanonets_proxy.telemetry.redaction import Redactor
from nanonets_proxy.telemetry.writer import LineWriter

_SANDBOX_STOP_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Log:
    """The log's writer, and the filter of its secrets."""

    writer: LineWriter
    redactor: Redactor

    def use(self, config: ServeConfig) -> None:
        """Applies the log settings of another configuration."""
        use(config.log_format, config.log_level, self.writer)


def serve(config: Config, read_settings: ReadSettings, inheritance: Inheritance, environ: Mapping[str, str]) -> int:
    """Serves until a signal, and returns the exit code. Reports an error at start on standard error.

    `environ`: the environment of the start.
    """
    if isinstance(config, SandboxConfig):
        return _run("auto", "info", lambda _: _serve_sandbox(config))
    if (sandbox := config.sandbox) is not None:
        return _run(
            config.log_format,
            config.log_level,
            lambda log: _serve_with_sandbox(config, sandbox, log, read_settings, inheritance),
            config.with_source,
        )
    try:
        # An unusable key ends the program before it listens.
        owners = KeyOwners()
        keys = [_read_initial_keys(environment, owners) for environment in config.environments]
    except (KeyUnusable, NoKeyGiven) as error:
        return _usage_error(error)
    forget_variables(config.secret_variables)
    secrets = {name: environ[name] for name in config.secret_variables if name in environ}
    start = Start(inheritance, secrets)
    return _run(
        config.log_format,
        config.log_level,
        lambda log: _serve(config, keys, log, read_settings, start),
        config.with_source,
    )


def _read_initial_keys(environment: EnvironmentConfig, owners: KeyOwners) -> InitialKeys:
    source = BoundSource(environment.key_source_config.find(os.environ), environment.audience)
    initial = InitialKeys(source, source.read())
    for found in initial.keys:
        owners.add(found.key)
    return initial


def _usage_error(error: object) -> int:
    sys.stderr.write(f"nanonets-proxy: {error}\n")
    return USAGE_ERROR


def _run(
    log_format: str,
    level: str,
    main: Callable[[_Log], Coroutine[Any, Any, None]],
    with_source: Callable[[str], str] = str,
) -> int:
    if http_parser.HttpRequestParser is http_parser.HttpRequestParserPy:
        # The parser in Python checks message framing less strictly, which an intermediary must not risk.
        return _usage_error("aiohttp lacks its compiled parser here; unset AIOHTTP_NO_EXTENSIONS")
    keep_freed_memory()
    prevent_core_dump()
    lock_memory()
    redactor = Redactor()
    stream = cast("BinaryIO", open(sys.stdout.fileno(), "wb", buffering=0, closefd=False))  # noqa: SIM115 - for life
    writer = configure(log_format, level, stream, redactor)
    try:
        uvloop.run(_run_to_its_end(main(_Log(writer, redactor)), writer))
    except (ListenFailed, AiohttpMismatch, CoordinationUnusable, JobsUnusable, WebhookUnusable) as error:
        return _usage_error(with_source(str(error)))
    except PeerLost as error:
        _usage_error(f"the restart failed, because this process cannot talk with the one to replace: {error}")
        return FAILED
    finally:
        writer.close()
    return OK


async def _run_to_its_end(main: Coroutine[Any, Any, None], writer: LineWriter) -> None:
    await main
    exit_soon(OK, writer.close)


async def _serve(
    config: ServeConfig, keys: Sequence[InitialKeys], log: _Log, read_settings: ReadSettings, start: Start
) -> None:
    shutdown = _stop_by_signals()
    program = _make_program(config, list(zip(config.environments, keys, strict=True)), shutdown, log, read_settings)
    await _run_until_stopped(program, shutdown, start)


def _make_program(
    config: ServeConfig,
    environments: Sequence[tuple[EnvironmentConfig, InitialKeys]],
    shutdown: Shutdown,
    log: _Log,
    read_settings: ReadSettings,
) -> Program:
    """Returns the program. Before, the log's filter learns the secrets of the configuration."""
    if config.webhook is not None:
        log.redactor.add(config.webhook.url.secrets())
    usage = None if config.ledger is None else UsageLedger(config.ledger)
    made = []
    for own, keys in environments:
        if own.dial.egress_proxy is not None:
            log.redactor.add(own.dial.egress_proxy.secrets())
        if own.fleet is not None:
            log.redactor.add(own.fleet.address.secrets())
        made.append(Environment(own, keys, log.redactor, usage))
    settings = SettingsReload(read_settings, log.use)
    return Program(config, made, shutdown, usage, settings, redactor=log.redactor, log_writer=log.writer)


async def _serve_with_sandbox(
    config: ServeConfig, sandbox: SandboxConfig, log: _Log, read_settings: ReadSettings, inheritance: Inheritance
) -> None:
    """Serves the sandbox in place of the upstream. It needs no key, and nothing leaves the machine."""
    shutdown = _stop_by_signals()
    # The receivers of alerts and metrics would take a simulated 429 for a real one.
    config = replace(config, webhook=None, otlp_metrics=None)
    callers_scheme = "http" if config.environments[0].tls is None else "https"
    runner, addresses, keys = await _start_sandbox(sandbox, callers_scheme)
    host, _, port = addresses[0].rpartition(":")
    own = config.environments[0].with_sandbox(Origin("http", host, int(port)))
    source = BoundSource(EnvironmentKey(ApiKey.parse(keys[0], "sandbox")), own.audience)
    try:
        environments = [(own, InitialKeys(source, source.read()))]
        program = _make_program(config, environments, shutdown, log, read_settings)
        is_alone = inheritance.companion is None
        on_start = partial(_announce_sandbox, program.environments[0]) if is_alone else None
        await _run_until_stopped(program, shutdown, Start(inheritance, {}), on_start=on_start)
    finally:
        await runner.cleanup()


async def _run_until_stopped(
    program: Program, shutdown: Shutdown, start: Start, on_start: Callable[[], None] | None = None
) -> None:
    lifecycle = Lifecycle(program, shutdown, start)
    await lifecycle.start()
    for environment in program.environments:
        named = {"environment": environment.name} if environment.name else {}
        structlog.get_logger().info(
            "started",
            version=__version__,
            listen=environment.listening.addresses,
            admin_listen=program.admin_listening.addresses,
            upstream=environment.upstream_name,
            key=environment.key_manager.name,
            **named,
        )
    if on_start is not None:
        on_start()
    _tune_garbage_collector()
    lifecycle.serving()
    await program.run_until_stopped()
    lifecycle.close()


async def _serve_sandbox(config: SandboxConfig) -> None:
    """Serves only the simulated API, which requires a key as the real API does."""
    shutdown = _stop_by_signals()
    runner, addresses, keys = await _start_sandbox(config)
    limit = config.policy.limit
    structlog.get_logger().info("sandbox_started", listen=addresses, limit=str(limit or "none"))
    sys.stderr.write(f"A simulated Nanonets API. Its documentation: {_url(addresses[0])}/\n")
    if not config.policy.api_keys:
        # This process made the key, so it is no secret, and the user needs it.
        sys.stderr.write(f"Its key: {keys[0]}\n  curl -u {keys[0]}: {_url(addresses[0])}/api/v4/workflows\n")
    try:
        await shutdown.requested()
    finally:
        await runner.cleanup()


async def _start_sandbox(
    config: SandboxConfig, proxy_scheme: str = ""
) -> tuple[web.AppRunner, list[str], Sequence[str]]:
    """Returns the running server, its addresses and the keys that it accepts. See `create_app`."""
    from nanonets_proxy.sandbox.app import create_app  # imported here: most processes serve no sandbox
    from nanonets_proxy.sandbox.policy import make_key

    sockets = open_sockets("listen", config.listen)
    keys = config.policy.api_keys or (make_key(),)
    app = create_app(replace(config.policy, api_keys=keys), proxy_scheme)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SANDBOX_STOP_S)
    await runner.setup()
    addresses = [describe(sock) for sock in sockets]
    for sock in sockets:
        await web.SockSite(runner, sock, backlog=BACKLOG).start()
    return runner, addresses, keys


def _announce_sandbox(environment: Environment) -> None:
    url = _url(environment.listening.addresses[0])
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
    """Returns the URL of `address`, after curl's option for a unix socket. All interfaces become localhost."""
    if address.startswith("unix:"):
        return f"--unix-socket {address[5:]} http://localhost"
    host, _, port = address.rpartition(":")
    return f"http://{'localhost' if is_every_interface(host) else host}:{port}"


def _stop_by_signals() -> Shutdown:
    """Returns a shutdown that the first SIGTERM or SIGINT requests. The second ends the process.

    A signal after POST /quitquitquit is the first one: the service quits the proxy, then the supervisor stops both.
    """
    shutdown = Shutdown()
    received: list[int] = []

    def on_signal(number: int) -> None:
        if received:
            os._exit(SIGNAL_BASE + number)
        received.append(number)
        shutdown.request(signal.Signals(number).name)

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    return shutdown


def _tune_garbage_collector() -> None:
    """Excludes the current objects from garbage collection, and makes collections rare.

    The current objects live as long as the process, and a request leaves no reference cycles. With the default
    threshold, collections take a fifteenth of all CPU time. With 10,000 callers, a burst makes more than 10,000
    objects, and one collection takes 0.1 s.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(30_000)
