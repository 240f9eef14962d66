"""The peers' commands and configurations: one process and one worker each, which adds the API key to each request.

All peers reuse upstream connections and verify the upstream's certificate. Only this proxy writes an access log,
checks callers and learns a limit.
"""

import os
import sys
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from speed.upstream import NGINX_USER, Origin

_KEY: Final = "bench-key-of-no-account"
AUTHORIZATION: Final = "Basic " + b64encode(f"{_KEY}:".encode()).decode()
OUR_COMMAND: Final = os.environ.get("NANONETS_PROXY_COMMAND", f"{sys.executable} -m nanonets_proxy").split()
AIOHTTP_VERSION: Final = [sys.executable, "-c", "import aiohttp; print(aiohttp.__version__)"]


@dataclass(frozen=True, slots=True)
class Setting:
    """A peer's directory, ports and upstream."""

    home: Path
    """The directory of the peer's files."""
    tools: Path
    """The directory of the programs that setup.sh installed."""
    upstream: Origin
    port: int
    admin_port: int


@dataclass(frozen=True, slots=True)
class Launch:
    """A command and its additional environment variables."""

    command: list[str]
    env: Mapping[str, str] = field(default_factory=dict)


def ours(setting: Setting) -> Launch:
    env = {
        "NANONETS_API_KEY": _KEY,
        "NANONETS_PROXY_UPSTREAM": setting.upstream.url,
        "NANONETS_PROXY_LISTEN": f"127.0.0.1:{setting.port}",
        "NANONETS_PROXY_ADMIN_LISTEN": f"127.0.0.1:{setting.admin_port}",
    }
    if setting.upstream.ca_file:
        env["NANONETS_PROXY_CA_FILE"] = str(setting.upstream.ca_file)
    return Launch([*OUR_COMMAND, "serve"], env)


_NGINX: Final = """
daemon off; worker_processes 1; pid {home}/nginx.pid; error_log {home}/nginx.error.log crit; {user}
worker_rlimit_nofile 20000;
events {{ worker_connections 19000; }}
http {{
    access_log off; client_max_body_size 0; keepalive_requests 1000000000; keepalive_timeout 600s;
    client_body_temp_path {home}/body; proxy_temp_path {home}/proxy; fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;
    upstream api {{ server {authority}; keepalive 256; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass {scheme}://api; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_set_header Host {authority}; proxy_set_header Authorization "{authorization}";
            proxy_request_buffering off; proxy_max_temp_file_size 0; client_body_buffer_size 64k;
            proxy_buffer_size 64k; proxy_buffers 16 64k; proxy_busy_buffers_size 128k; {tls}
        }}
    }}
}}
"""
_NGINX_TLS: Final = (
    "proxy_ssl_verify on; proxy_ssl_trusted_certificate {ca}; proxy_ssl_name localhost; proxy_ssl_server_name on; "
    "proxy_ssl_protocols TLSv1.2 TLSv1.3;"
)


def nginx(setting: Setting) -> Launch:
    file = setting.home / "nginx.conf"
    ca = setting.upstream.ca_file
    file.write_text(
        _NGINX.format(
            home=setting.home,
            user=NGINX_USER,
            authority=setting.upstream.authority,
            port=setting.port,
            scheme="https" if ca else "http",
            authorization=AUTHORIZATION,
            tls=_NGINX_TLS.format(ca=ca) if ca else "",
        )
    )
    return Launch(["nginx", "-p", str(setting.home), "-c", str(file)])


_HAPROXY: Final = """
global
    nbthread 1
    maxconn 9700
defaults
    mode http
    maxconn 9700
    timeout connect 5s
    timeout client 600s
    timeout server 600s
frontend callers
    bind 127.0.0.1:{port} backlog 4096
    default_backend upstream
backend upstream
    http-request set-header Host {authority}
    http-request set-header Authorization "{authorization}"
    server api 127.0.0.1:{upstream_port} pool-max-conn 256 {tls}
"""


def haproxy(setting: Setting) -> Launch:
    file = setting.home / "haproxy.conf"
    ca = setting.upstream.ca_file
    file.write_text(
        _HAPROXY.format(
            authority=setting.upstream.authority,
            port=setting.port,
            upstream_port=setting.upstream.port,
            authorization=AUTHORIZATION,
            tls=f"ssl verify required ca-file {ca} sni str(localhost) verifyhost localhost" if ca else "",
        )
    )
    return Launch(["haproxy", "-db", "-f", str(file)])


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
    reverse_proxy {url} {{
        header_up Host {authority}
        header_up Authorization "{authorization}"
        transport http {{
            keepalive_idle_conns_per_host 256
            compression off
            {tls}
        }}
    }}
}}
"""


def caddy(setting: Setting) -> Launch:
    file = setting.home / "Caddyfile"
    ca = setting.upstream.ca_file
    file.write_text(
        _CADDY.format(
            port=setting.port,
            url=setting.upstream.url,
            authority=setting.upstream.authority,
            authorization=AUTHORIZATION,
            tls=f"tls_server_name localhost\n            tls_trust_pool file {ca}" if ca else "",
        )
    )
    command = [str(setting.tools / "venv/bin/caddy"), "run", "--adapter", "caddyfile", "--config", str(file)]
    return Launch(command, {"GOMAXPROCS": "1", "XDG_DATA_HOME": str(setting.home)})


def recipe(setting: Setting) -> Launch:
    ca = [str(setting.upstream.ca_file)] if setting.upstream.ca_file else []
    command = [
        sys.executable,
        "-m",
        "speed.peers.recipe",
        str(setting.port),
        setting.upstream.url,
        AUTHORIZATION,
        *ca,
    ]
    return Launch(command)


def mitmproxy(setting: Setting) -> Launch:
    options = {
        "connection_strategy": "lazy",
        "stream_large_bodies": "1m",
        "flow_detail": "0",
        "termlog_verbosity": "error",
        "modify_headers": f"|~q|Authorization|{AUTHORIZATION}",
        "confdir": str(setting.home),
    }
    if setting.upstream.ca_file:
        options["ssl_verify_upstream_trusted_ca"] = str(setting.upstream.ca_file)
    command = [str(setting.tools / "venv/bin/mitmdump"), "--quiet", "--mode", f"reverse:{setting.upstream.url}"]
    command += ["--listen-host", "127.0.0.1", "--listen-port", str(setting.port)]
    return Launch([*command, *(part for name, value in options.items() for part in ("--set", f"{name}={value}"))])
