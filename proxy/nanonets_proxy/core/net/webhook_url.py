"""The receiver of alarms: its URL and its secret, parsed from the settings.

A path often holds the only secret of a webhook, so neither `str` nor an error shows it.
"""

import binascii
import re
from base64 import b64decode
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from nanonets_proxy.core.net.address_ranges import is_public_address
from nanonets_proxy.core.net.addresses import Origin, is_ip_address, parse_collector

_TARGET = re.compile(r"[!-~]*", re.ASCII)
_LONG: Final = 16  # a shorter part of a path is a name
SECRET_PREFIX: Final = "whsec_"  # noqa: S105  # standard-webhooks.md, "Signature scheme"
_SECRET_BYTES: Final = range(24, 65)


@dataclass(frozen=True, slots=True)
class WebhookUrl:
    """Where alarms go. `target` is the path with the query."""

    origin: Origin
    target: str = field(repr=False)

    def secrets(self) -> tuple[bytes, ...]:
        """Returns the byte strings that must never appear in the log."""
        return tuple(part.encode() for part in re.split(r"[/?&=]", self.target) if len(part) >= _LONG)

    def __str__(self) -> str:
        return f"{self.origin}{'' if self.target == '/' else '/***'}"


def parse_webhook_url(text: str) -> WebhookUrl:
    """Parses the URL of the receiver. Plain HTTP may lead only to loopback and private addresses.

    A name is resolved only when an alarm is sent, so `may_get_http` checks its addresses then.

    Raises:
        ValueError: the text is not such a URL; the message says why and never shows the text.
    """
    try:
        parts = urlsplit(text)
    except ValueError:
        raise ValueError("is not a URL: its host or port is malformed") from None
    if "#" in text:
        raise ValueError("must not have a fragment")
    if not _TARGET.fullmatch(text):
        raise ValueError("must be ASCII without spaces: percent-encode other characters")
    origin = parse_collector(f"{parts.scheme}://{parts.netloc}")
    if not origin.tls and is_ip_address(origin.host) and not may_get_http(origin.host):
        raise ValueError("must be https: plain http is allowed only to loopback and private addresses")
    return WebhookUrl(origin, (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))


def may_get_http(address: str) -> bool:
    """Returns whether plain HTTP may go to an IP address: it is not on the public Internet."""
    return not is_public_address(address)


def parse_webhook_secret(text: str) -> bytes:
    """Returns the key of the signatures, from the text of the secret file.

    Raises:
        ValueError: the text is no such secret; the message never shows it.
    """
    form = f"holds no secret: write {SECRET_PREFIX} and 24 to 64 random bytes in base64"
    text = text.strip()
    if not text.startswith(SECRET_PREFIX):
        raise ValueError(form)
    try:
        key = b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error:
        raise ValueError(form) from None
    if len(key) not in _SECRET_BYTES:
        raise ValueError(form)
    return key
