"""The audience of a key: the one upstream that may get it, and the authentication scheme."""

import enum
import re
from dataclasses import dataclass
from typing import Final

from nanonets_proxy.core.access.token_text import is_caller_token
from nanonets_proxy.core.net.addresses import Origin

# RFC 6750 §2.1, the token68 of RFC 9110 §11.2: what may stand behind `Bearer`.
_TOKEN68: Final = re.compile(rb"[A-Za-z0-9._~+/-]+=*")

_NANONETS: Final = ".nanonets.com"

DEFAULT_UPSTREAM: Final = Origin("https", "app.nanonets.com", 443)
"""The Nanonets API."""


class AuthScheme(enum.StrEnum):
    """How a key is sent."""

    BASIC = "basic"
    """As the user name of HTTP Basic, with an empty password: the Nanonets API."""
    BEARER = "bearer"
    """As a bearer token: DocStrange."""


@dataclass(frozen=True, slots=True)
class Audience:
    """A key for this audience is sent to `origin` alone."""

    origin: Origin
    scheme: AuthScheme = AuthScheme.BASIC

    def __str__(self) -> str:
        return f"{self.origin} ({self.scheme})"

    def fault_of(self, key: bytes) -> str | None:
        """Returns why the key cannot be sent to the audience, as the end of a sentence; None if it can."""
        # Nanonets would send a 401 that explains nothing. Other upstreams may be a nanonets-proxy and take tokens.
        if f".{self.origin.host}".endswith(_NANONETS) and is_caller_token(key):
            return (
                "is a token of another nanonets-proxy, such as `nanonets-proxy run` gives to its command, and not "
                "a key: call that proxy, whose address `run` puts into NANONETS_BASE_URL"
            )
        if self.scheme is AuthScheme.BEARER and not _TOKEN68.fullmatch(key):
            return "has characters that no bearer token has: it may have letters, digits, - . _ ~ + / and a final ="
        return None
