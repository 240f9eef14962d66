"""The peers: starts each of them and waits until it is ready."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from speed.peers import envoy, launches
from speed.peers.launches import OUR_COMMAND, Launch, Setting
from speed.processes import PROXY_CORE, Started, free_port, running, until
from speed.requests import SMALL, succeeds
from speed.upstream import Origin

OURS: Final = "nanonets-proxy"
DIRECT: Final = "no proxy"
RECIPE: Final = "aiohttp recipe"


@dataclass(frozen=True, slots=True)
class Peer:
    """`version` returns a command that prints the version."""

    name: str
    launch: Callable[[Setting], Launch]
    version: Callable[[Path], list[str]]


@dataclass(frozen=True, slots=True)
class Running:
    """A peer that is ready. `process` is None for the upstream itself."""

    name: str
    url: str
    upstream: Origin
    process: Started | None = None
    ready_after_s: float = 0.0

    def cpu_s(self) -> float:
        """Returns the CPU time of the peer's process tree so far."""
        return self.process.cpu_s() if self.process else 0.0


PEERS: Final = (
    Peer(OURS, launches.ours, lambda _: [*OUR_COMMAND, "--version"]),
    Peer("nginx", launches.nginx, lambda _: ["nginx", "-v"]),
    Peer("HAProxy", launches.haproxy, lambda _: ["haproxy", "-v"]),
    Peer("Envoy", envoy.launch, lambda tools: [str(tools / "venv/bin/envoy"), "--version"]),
    Peer("Caddy", launches.caddy, lambda tools: [str(tools / "venv/bin/caddy"), "version"]),
    Peer(RECIPE, launches.recipe, lambda _: launches.AIOHTTP_VERSION),
    Peer("mitmproxy", launches.mitmproxy, lambda tools: [str(tools / "venv/bin/mitmdump"), "--version"]),
)


@contextmanager
def serving(
    peer: Peer, home: Path, tools: Path, upstream: Origin, options: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """Runs the peer, and waits until it responds to the small GET. `options` are extra environment variables."""
    with ExitStack() as stack:
        for attempts_left in (2, 1, 0):
            try:
                ready = stack.enter_context(_serving(peer, home, tools, upstream, options or {}))
                break
            except RuntimeError:  # a connection of the load may have taken the port
                if not attempts_left:
                    raise
        yield ready


@contextmanager
def _serving(
    peer: Peer, home: Path, tools: Path, upstream: Origin, options: Mapping[str, str]
) -> Iterator[Running]:
    own = home / peer.name
    own.mkdir(exist_ok=True)
    setting = Setting(own, tools, upstream, free_port(), free_port())
    launch = peer.launch(setting)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("NANONETS_")}
    env = {**inherited, **launch.env, **options}
    url = f"http://127.0.0.1:{setting.port}"
    with running(launch.command, core=PROXY_CORE, log=own / "output.log", env=env) as process:
        ready_after_s = until(lambda: succeeds(url, SMALL), process)
        yield Running(peer.name, url, upstream, process, ready_after_s)
