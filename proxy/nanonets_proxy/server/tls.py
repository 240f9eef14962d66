"""TLS for callers: the listeners' certificate, and the authorities of client certificates.

An SSL context cannot forget certificates, so each reload makes a new context, and each handshake takes the newest
one. A callback for the server's name could do that too, but with one, Python writes a traceback to standard error
for each name that is not ASCII.
"""

import ssl

from nanonets_proxy.server.tls_policy import ListenerTlsPolicy


class ListenerTls:
    """Handshakes use `context`. Raises OSError (of which ssl.SSLError is one) if a file cannot be used."""

    def __init__(self, policy: ListenerTlsPolicy) -> None:
        self._policy = policy
        self.context = make_listener_context(policy)

    def change_policy(self, policy: ListenerTlsPolicy, context: ssl.SSLContext) -> None:
        """Uses other files for new connections; `context` is made from them (`make_listener_context`)."""
        self._policy, self.context = policy, context

    def reload(self) -> None:
        """Reads the files again, for new connections. Raises OSError, and changes nothing then."""
        self.context = make_listener_context(self._policy)


def make_listener_context(policy: ListenerTlsPolicy) -> ssl.SSLContext:
    """Returns a context for TLS 1.2 or newer.

    It has no session resumption, which would skip the certificates. It has no renegotiation, by which a caller
    could make the proxy repeat the costly part of a handshake.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 0
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(policy.cert_file, policy.key_file, password=_no_password)
    if policy.client_ca_file is not None:
        context.load_verify_locations(cafile=policy.client_ca_file)
        context.verify_mode = ssl.CERT_REQUIRED if policy.required else ssl.CERT_OPTIONAL
    return context


def _no_password() -> str:
    """Keeps OpenSSL from asking for a password on the terminal."""
    raise ssl.SSLError("the private key is encrypted; give one without a password")
