"""The peers: each one process, one worker, one event thread; injects the key, forwards the rest.

None but ours writes an access log, guards or learns a limit; Envoy counts requests too. All keep connections to the
upstream, and verify its certificate where it has one.
"""

import json
import os
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from speed.processes import PROXY_CORE, Started, free_port, running, until
from speed.requests import SMALL, answers
from speed.upstream import NGINX_USER, Upstream

OURS: Final = "nanonets-proxy"
DIRECT: Final = "no proxy"

_KEY: Final = "bench-key-of-no-account"
_AUTHORIZATION: Final = "Basic " + b64encode(f"{_KEY}:".encode()).decode()
_OUR_COMMAND: Final = os.environ.get("NANONETS_PROXY_COMMAND", f"{sys.executable} -m nanonets_proxy").split()


@dataclass(frozen=True, slots=True)
class Setting:
    """Where a peer runs, and what for."""

    home: Path
    """For its files, of this run."""
    tools: Path
    """Where setup.sh has put programs."""
    upstream: Upstream
    tls: bool
    port: int
    admin_port: int
    options: Mapping[str, str] = field(default_factory=dict)
    """Settings of ours besides the defaults, by environment variable."""

    @property
    def origin(self) -> str:
        """Of the peer."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def behind(self) -> str:
        """Host and port of the upstream."""
        return f"localhost:{self.upstream.tls_port}" if self.tls else f"127.0.0.1:{self.upstream.plain_port}"


@dataclass(frozen=True, slots=True)
class Launch:
    """A command and its environment, where that is not ours."""

    command: list[str]
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Peer:
    """`launch` may write files to the setting's home; `version` is a command."""

    name: str
    launch: Callable[[Setting], Launch]
    version: Callable[[Path], list[str]]


@dataclass(frozen=True, slots=True)
class Running:
    """A peer that answers."""

    setting: Setting
    process: Started
    ready_after_s: float

    @property
    def origin(self) -> str:
        return self.setting.origin

    def cpu_s(self) -> float:
        """CPU time that it has used so far."""
        return self.process.cpu_s()


def _ours(setting: Setting) -> Launch:
    env = {
        "NANONETS_API_KEY": _KEY,
        "NANONETS_PROXY_UPSTREAM": setting.upstream.origin(tls=setting.tls),
        "NANONETS_PROXY_LISTEN": f"127.0.0.1:{setting.port}",
        "NANONETS_PROXY_ADMIN_LISTEN": f"127.0.0.1:{setting.admin_port}",
        **({"NANONETS_PROXY_CA_FILE": str(setting.upstream.ca_file)} if setting.tls else {}),
        **setting.options,
    }
    return Launch([*_OUR_COMMAND, "serve"], env)


_NGINX: Final = """
daemon off; worker_processes 1; pid {home}/nginx.pid; error_log {home}/nginx.error.log crit; {user}
worker_rlimit_nofile 20000;
events {{ worker_connections 19000; }}
http {{
    access_log off; client_max_body_size 0; keepalive_requests 1000000000; keepalive_timeout 600s;
    client_body_temp_path {home}/body; proxy_temp_path {home}/proxy; fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;
    upstream api {{ server {behind}; keepalive 256; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass {scheme}://api; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_set_header Host {behind}; proxy_set_header Authorization "{authorization}";
            proxy_request_buffering off; proxy_max_temp_file_size 0; {tls}
        }}
    }}
}}
"""
_NGINX_TLS: Final = (
    "proxy_ssl_verify on; proxy_ssl_trusted_certificate {ca}; proxy_ssl_name localhost; proxy_ssl_server_name on; "
    "proxy_ssl_protocols TLSv1.2 TLSv1.3;"
)


def _nginx(setting: Setting) -> Launch:
    file = setting.home / "nginx.conf"
    file.write_text(
        _NGINX.format(
            home=setting.home,
            user=NGINX_USER,
            behind=setting.behind,
            port=setting.port,
            scheme="https" if setting.tls else "http",
            authorization=_AUTHORIZATION,
            tls=_NGINX_TLS.format(ca=setting.upstream.ca_file) if setting.tls else "",
        )
    )
    return Launch(["nginx", "-p", str(setting.home), "-c", str(file)])


def _envoy(setting: Setting) -> Launch:
    file = setting.home / "envoy.json"
    file.write_text(json.dumps(_envoy_configuration(setting), indent=1))
    envoy = str(setting.tools / "venv/bin/envoy")
    options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "--config-path", str(file)]
    return Launch([envoy, *options])


_ENVOY_TYPES: Final = "type.googleapis.com/envoy.extensions"


def _envoy_configuration(setting: Setting) -> dict[str, object]:
    port = setting.upstream.tls_port if setting.tls else setting.upstream.plain_port
    key = {
        "header": {"key": "authorization", "value": _AUTHORIZATION},
        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    }
    route = {
        "match": {"prefix": "/"},
        "route": {"cluster": "api", "timeout": "0s", "host_rewrite_literal": setting.behind},
        "request_headers_to_add": [key],
    }
    router = {"@type": f"{_ENVOY_TYPES}.filters.http.router.v3.Router"}
    manager = {
        "@type": f"{_ENVOY_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "callers",
        "codec_type": "HTTP1",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
    }
    listener = {
        "name": "callers",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": setting.port}},
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
    endpoint = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}
    bounds = dict.fromkeys(("max_connections", "max_pending_requests", "max_requests"), 20_000)
    cluster: dict[str, object] = {
        "name": "api",
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": {"thresholds": [bounds]},
        "load_assignment": {
            "cluster_name": "api",
            "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}],
        },
    }
    if setting.tls:
        trusted = {
            "trusted_ca": {"filename": str(setting.upstream.ca_file)},
            "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": "localhost"}}],
        }
        tls = {
            "@type": f"{_ENVOY_TYPES}.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": "localhost",
            "common_tls_context": {
                "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"},
                "validation_context": trusted,
            },
        }
        cluster["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": tls}
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


PEERS: Final = (
    Peer(OURS, _ours, lambda _: [*_OUR_COMMAND, "--version"]),
    Peer("nginx", _nginx, lambda _: ["nginx", "-v"]),
    Peer("Envoy", _envoy, lambda tools: [str(tools / "venv/bin/envoy"), "--version"]),
)


@contextmanager
def serving(
    peer: Peer, home: Path, tools: Path, upstream: Upstream, *, tls: bool, options: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """The peer, once it answers the small request."""
    own = home / peer.name
    own.mkdir(exist_ok=True)
    setting = Setting(own, tools, upstream, tls, free_port(), free_port(), options or {})
    launch = peer.launch(setting)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("NANONETS_")}
    with running(
        launch.command, core=PROXY_CORE, log=own / "output.log", env={**inherited, **launch.env}
    ) as process:
        ready_after_s = until(lambda: answers(setting.origin, SMALL), process)
        yield Running(setting, process, ready_after_s)
