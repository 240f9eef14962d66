"""TLS for callers: the certificate that the listeners show, and the authorities of client certificates.

A context cannot forget what it was given, so each reload makes a new one. The listening context stays, and hands
each new connection over to the newest one when its handshake begins.
"""

import ssl
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ListenerTlsPolicy:
    """PEM files. With `client_ca_file`, a caller has to show a certificate of it, or may, if not `required`."""

    cert_file: Path
    key_file: Path
    client_ca_file: Path | None = None
    required: bool = True


class ListenerTls:
    """`context` is what to listen with. Raises OSError (ssl.SSLError too) where a file cannot be used."""

    def __init__(self, policy: ListenerTlsPolicy) -> None:
        self._policy = policy
        self._newest = make_listener_context(policy)
        self.context = make_listener_context(policy)
        self.context.sni_callback = self._hand_over

    def reload(self) -> None:
        """Takes the files as they are now, for connections to come. Raises OSError, and then changes nothing."""
        self._newest = make_listener_context(self._policy)

    def _hand_over(self, connection: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _: ssl.SSLContext) -> None:
        connection.context = self._newest


def make_listener_context(policy: ListenerTlsPolicy) -> ssl.SSLContext:
    """TLS 1.2 or newer. No session outlives a reload: a resumed one would skip the check of the certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(policy.cert_file, policy.key_file, password=_no_password)
    if policy.client_ca_file is not None:
        context.load_verify_locations(cafile=policy.client_ca_file)
        context.verify_mode = ssl.CERT_REQUIRED if policy.required else ssl.CERT_OPTIONAL
    return context


def _no_password() -> str:
    """Instead of a question on the terminal."""
    raise ssl.SSLError("the private key is encrypted, and there is nobody to ask for its password")
