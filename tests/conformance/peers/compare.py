"""Runs the comparable cases against other proxies: `python -m conformance.peers.compare DIRECTORY`.

Each peer is a process on a free loopback port, configured as a plain reverse proxy that does not reuse upstream
connections. Exit status 1: this proxy fails a case that a peer passes.
"""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvloop

from conformance.cases import CASES
from conformance.page import RESULTS
from conformance.play import Failed, Stage
from conformance.steps import Case
from support.commands.ports import free_port
from support.proxy_harness import running_proxy
from support.raw_caller import RawCaller
from support.scripted_upstream import ScriptedUpstream

_OURS: Final = "nanonets-proxy"
_PATIENCE_S: Final = 2.0
_START_WITHIN_S: Final = 10.0

_NGINX: Final = """
daemon off; worker_processes 1; user root; pid {dir}/nginx.pid; error_log {dir}/nginx.log crit;
events {{ worker_connections 256; }}
http {{
    access_log off; client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi; merge_slashes off; client_max_body_size 0;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{upstream}; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_set_header Host 127.0.0.1:{upstream}; proxy_buffering off; proxy_request_buffering off;
        }}
    }}
}}
"""
_HAPROXY: Final = """
defaults
    mode http
    timeout connect 2s
    timeout client 10s
    timeout server 10s
frontend callers
    bind 127.0.0.1:{port}
    default_backend upstream
backend upstream
    http-reuse never
    http-request set-header Host 127.0.0.1:{upstream}
    server upstream 127.0.0.1:{upstream}
"""
_CADDY: Final = """
{{
    admin off
    auto_https off
    persist_config off
    servers {{
        protocols h1
    }}
}}
http://:{port} {{
    bind 127.0.0.1
    reverse_proxy 127.0.0.1:{upstream} {{
        header_up Host {{upstream_hostport}}
        flush_interval -1
        transport http {{
            keepalive off
            compression off
        }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Peer:
    """`command` takes the directory and the path of the configuration."""

    name: str
    configuration: str
    command: Callable[[Path, Path], list[str]]
    version: Callable[[Path], list[str]]


PEERS: Final = (
    Peer(
        "nginx", _NGINX, lambda home, file: ["nginx", "-p", str(home), "-c", str(file)], lambda _: ["nginx", "-v"]
    ),
    Peer("HAProxy", _HAPROXY, lambda _, file: ["haproxy", "-db", "-f", str(file)], lambda _: ["haproxy", "-v"]),
    Peer(
        "Caddy",
        _CADDY,
        lambda home, file: [str(home / "venv/bin/caddy"), "run", "--adapter", "caddyfile", "--config", str(file)],
        lambda home: [str(home / "venv/bin/caddy"), "version"],
    ),
)


@asynccontextmanager
async def _running(peer: Peer, home: Path, upstream_port: int) -> AsyncIterator[str]:
    port = free_port()
    file = home / f"{peer.name.lower()}.conf"
    file.write_text(peer.configuration.format(dir=home, port=port, upstream=upstream_port))
    process = await asyncio.create_subprocess_exec(
        *peer.command(home, file), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        await _until_listening(port, process)
        yield f"127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _until_listening(port: int, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(_START_WITHIN_S):
        while True:
            if process.returncode is not None:
                raise RuntimeError(f"{process} ended with {process.returncode}")
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return


async def _run_against(case: Case, address: str, upstream_port: int) -> str | None:
    """Returns the failure, or None if the case passes."""
    async with ScriptedUpstream(port=upstream_port) as upstream, await RawCaller.connect(address) as caller:
        try:
            await Stage(caller, upstream, ours=False, patience_s=_PATIENCE_S).play(case)
        except Failed as failure:
            return str(failure)
    return None


async def _run_against_ours(case: Case) -> str | None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin, **case.settings) as proxy,
        await proxy.caller() as caller,
    ):
        try:
            await Stage(caller, upstream, ours=True, patience_s=_PATIENCE_S).play(case)
        except Failed as failure:
            return str(failure)
    return None


def _version(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"\d+\.\d+\.\d+", done.stdout + done.stderr)
    assert found is not None
    return found[0]


async def compare(home: Path) -> int:
    compared = [case for case in CASES if case.comparable]
    failed: dict[str, dict[str, str]] = {}
    for peer in PEERS:
        upstream_port = free_port()
        async with _running(peer, home, upstream_port) as address:
            outcomes = {case.fact: await _run_against(case, address, upstream_port) for case in compared}
        failed[peer.name] = {fact: failure for fact, failure in outcomes.items() if failure is not None}
    ours = {case.fact: await _run_against_ours(case) for case in compared}
    failed[_OURS] = {fact: failure for fact, failure in ours.items() if failure is not None}
    versions = {peer.name: _version(peer.version(home)) for peer in PEERS}
    report = {
        name: {"version": versions.get(name, "this"), "failed": sorted(failed[name])} for name in (_OURS, *versions)
    }
    RESULTS.write_text(json.dumps({"peers": report}, indent=1) + "\n")
    (home / "failures.json").write_text(json.dumps(failed, indent=1) + "\n")
    for name, failures in failed.items():
        print(f"{name}: {len(compared) - len(failures)} of {len(compared)}")  # noqa: T201 - the command's output
    worse = [fact for fact in failed[_OURS] if any(fact not in failed[peer.name] for peer in PEERS)]
    for fact in worse:
        print(f"only ours fails: {fact}: {failed[_OURS][fact]}")  # noqa: T201 - the command's output
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(uvloop.run(compare(Path(sys.argv[1]).resolve())))
