"""The upstream: nginx on the load's core, answering at once, plain and by TLS."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trustme

from speed.processes import LOAD_CORE, free_port, running, until
from speed.requests import SMALL, answers

LARGE_BYTES: Final = 64 * 1024
HUGE_BYTES: Final = 1024**3
NGINX_USER: Final = "user root;" if os.geteuid() == 0 else ""
"""As root, nginx would else become a user that may not read this run's files."""

_SMALL_ANSWER: Final = (
    '{"workflows": [{"id": "5f2c9d1e", "description": "Invoices of suppliers", "workflow_type": "", '
    '"created_at": "2025-01-31T12:00:00Z", "settings": {"table_capture": true, "status": "ready"}}], "next": null}'
)

# `return` would answer before the body has come; a mirror of the request makes nginx read all of it first.
_CONFIGURATION: Final = """
daemon off; worker_processes 1; pid {home}/upstream.pid; error_log {home}/upstream.error.log crit; {user}
worker_rlimit_nofile 20000;
events {{ worker_connections 16000; }}
http {{
    access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000; keepalive_timeout 600s;
    open_file_cache max=10 inactive=600s; client_max_body_size 0; client_body_buffer_size 256k;
    client_body_temp_path {home}/body; proxy_temp_path {home}/proxy; fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;
    server {{
        listen 127.0.0.1:{plain} backlog=4096; listen [::1]:{plain} backlog=4096;
        listen 127.0.0.1:{tls} ssl backlog=4096; listen [::1]:{tls} ssl backlog=4096;
        ssl_certificate {home}/upstream.pem; ssl_certificate_key {home}/upstream.key;
        ssl_protocols TLSv1.3; ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
        default_type application/json; root {home}/files;
        location = /api/v4/workflows {{ return 200 '{small}'; }}
        location = /api/v4/documents {{ mirror /nowhere; mirror_request_body on; try_files /small.json =404; }}
        location = /nowhere {{ internal; return 204; }}
        location = /api/v4/large {{ try_files /large.json =404; }}
        location = /api/v4/huge {{ try_files /huge.bin =404; }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where it listens, and the authority that its certificate is of."""

    plain_port: int
    tls_port: int
    ca_file: Path

    def origin(self, *, tls: bool) -> str:
        return f"https://localhost:{self.tls_port}" if tls else f"http://127.0.0.1:{self.plain_port}"


@contextmanager
def upstream(home: Path) -> Iterator[Upstream]:
    """`home` gets its files and configuration."""
    found = Upstream(free_port(), free_port(), home / "ca.pem")
    _write_certificates(home, found.ca_file)
    _write_files(home / "files")
    file = home / "upstream.conf"
    file.write_text(
        _CONFIGURATION.format(
            home=home, plain=found.plain_port, tls=found.tls_port, small=_SMALL_ANSWER, user=NGINX_USER
        )
    )
    command = ["nginx", "-p", str(home), "-c", str(file)]
    with running(command, core=LOAD_CORE, log=home / "upstream.log") as started:
        until(lambda: answers(found.origin(tls=False), SMALL), started)
        yield found


def _write_certificates(home: Path, ca_file: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(ca_file)
    server = authority.issue_cert("localhost")
    server.private_key_pem.write_to_path(home / "upstream.key")
    (home / "upstream.pem").write_bytes(b"".join(part.bytes() for part in server.cert_chain_pems))


def _write_files(directory: Path) -> None:
    directory.mkdir(exist_ok=True)
    (directory / "small.json").write_text(_SMALL_ANSWER)
    (directory / "large.json").write_bytes(b'"' + b"x" * (LARGE_BYTES - 2) + b'"')
    with (directory / "huge.bin").open("wb") as file:
        file.truncate(HUGE_BYTES)  # without blocks: it costs no disk
