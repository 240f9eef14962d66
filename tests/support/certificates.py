"""Certificates for tests, and TLS contexts of servers that use them."""

import contextlib
import socket
import ssl
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme


class CertificateAuthority:
    """A certificate authority and the file that holds its certificate."""

    def __init__(self, directory: Path) -> None:
        self._ca = trustme.CA()
        self.file = directory / "ca.pem"
        self._ca.cert_pem.write_to_path(self.file)

    def server(self, name: str = "127.0.0.1", *, expired: bool = False) -> ssl.SSLContext:
        """Returns a server's context with a certificate for `name`."""
        until = datetime.now(UTC) - timedelta(days=1) if expired else None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._ca.issue_cert(name, not_after=until).configure_cert(context)
        return context

    def accept_with_tls_1_1(self, listener: socket.socket) -> None:
        """Accepts one connection, and offers at most TLS 1.1."""
        context = self.server()
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the outdated version is intended
            context.minimum_version = ssl.TLSVersion.TLSv1_1
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        sock, _ = listener.accept()
        with sock, contextlib.suppress(ssl.SSLError), context.wrap_socket(sock, server_side=True):
            pass
