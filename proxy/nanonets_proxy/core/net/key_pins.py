"""Pins of public keys: the SHA-256 of a certificate's SubjectPublicKeyInfo (RFC 7469 §2.4), in curl's form."""

import binascii
from base64 import b64decode, b64encode
from hashlib import sha256
from typing import Final

from nanonets_proxy.core.net.certificate import public_key_info

_PREFIX: Final = "sha256//"
_DIGEST_BYTES: Final = 32


def parse_pin(text: str) -> bytes:
    """Returns the digest in `sha256//BASE64`. Raises ValueError if the text is not a pin."""
    try:
        digest = b64decode(text.removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        digest = b""
    if not text.startswith(_PREFIX) or len(digest) != _DIGEST_BYTES:
        raise ValueError(f"{text!r} is not a pin: write sha256// and the Base64 of the public key's SHA-256")
    return digest


def format_pin(digest: bytes) -> str:
    return _PREFIX + b64encode(digest).decode()


def public_key_digest(certificate: bytes) -> bytes:
    """Returns the SHA-256 of a DER certificate's SubjectPublicKeyInfo. Raises ValueError if it cannot be read."""
    return sha256(public_key_info(certificate)).digest()
