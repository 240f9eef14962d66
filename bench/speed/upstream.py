"""The upstreams on the load's core: nginx for small bodies, and a Python program for bodies of 1 GiB."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trustme

from speed.processes import LOAD_CORE, free_port, running, until
from speed.requests import LARGE_BYTES, SMALL, SMALL_RESPONSE, succeeds

NGINX_USER: Final = "user root;" if os.geteuid() == 0 else ""
"""As root, nginx would otherwise switch to a user that cannot read this run's files."""

# `return` would respond before the body has arrived; `mirror` makes nginx read the whole body first.
_CONFIGURATION: Final = """
daemon off; worker_processes 1; pid {home}/upstream.pid; error_log {home}/upstream.error.log crit; {user}
worker_rlimit_nofile 20000;
events {{ worker_connections 16000; }}
http {{
    access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000; keepalive_timeout 600s;
    open_file_cache max=10 inactive=600s; open_file_cache_errors on;
    client_max_body_size 0; client_body_buffer_size 2m;
    large_client_header_buffers 8 16k;
    client_body_temp_path {home}/body; proxy_temp_path {home}/proxy; fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;
    server {{
        listen 127.0.0.1:{plain} backlog=4096; listen [::1]:{plain} backlog=4096;
        listen 127.0.0.1:{tls} ssl backlog=4096; listen [::1]:{tls} ssl backlog=4096;
        ssl_certificate {home}/upstream.pem; ssl_certificate_key {home}/upstream.key;
        ssl_protocols TLSv1.3; ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
        default_type application/json; root {home}/files;
        location / {{ return 200 '{small}'; }}
        location = /api/v4/documents {{ mirror /nowhere; error_page 404 405 = @small; }}
        location @small {{ return 200 '{small}'; }}
        location = /nowhere {{ internal; return 204; }}
        location = /api/v4/large {{ try_files /large.json =404; }}
        location = /requests {{ stub_status; }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Origin:
    """An upstream's address. `ca_file` is set if the upstream uses TLS, with the name `localhost`."""

    port: int
    ca_file: Path | None = None

    @property
    def authority(self) -> str:
        return f"{'localhost' if self.ca_file else '127.0.0.1'}:{self.port}"

    @property
    def url(self) -> str:
        return f"{'https' if self.ca_file else 'http'}://{self.authority}"


@dataclass(frozen=True, slots=True)
class Upstreams:
    plain: Origin
    tls: Origin
    bulk: Origin
    """Receives and sends bodies of 1 GiB without disk access."""


@contextmanager
def upstreams(home: Path) -> Iterator[Upstreams]:
    """Runs the upstreams during the block, with their files in `home`."""
    found = Upstreams(Origin(free_port()), Origin(free_port(), home / "ca.pem"), Origin(free_port()))
    _write_certificates(home)
    files = home / "files"
    files.mkdir()
    (files / "large.json").write_bytes(b'"' + b"x" * (LARGE_BYTES - 2) + b'"')
    configuration = home / "upstream.conf"
    ports = {"plain": found.plain.port, "tls": found.tls.port}
    configuration.write_text(_CONFIGURATION.format(home=home, user=NGINX_USER, small=SMALL_RESPONSE, **ports))
    nginx = ["nginx", "-p", str(home), "-c", str(configuration)]
    bulk = [sys.executable, "-m", "speed.load.bulk_upstream", str(found.bulk.port), str(home)]
    with (
        running(nginx, core=LOAD_CORE, log=home / "upstream.log") as nginx_process,
        running(bulk, core=LOAD_CORE, log=home / "bulk.log") as bulk_process,
    ):
        until(lambda: succeeds(found.plain.url, SMALL), nginx_process)
        until(lambda: succeeds(found.bulk.url, SMALL), bulk_process)
        yield found


def _write_certificates(home: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(home / "ca.pem")
    server = authority.issue_cert("localhost")
    server.private_key_pem.write_to_path(home / "upstream.key")
    (home / "upstream.pem").write_bytes(b"".join(part.bytes() for part in server.cert_chain_pems))
