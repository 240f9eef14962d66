"""Pins of public keys: the SHA-256 of a certificate's SubjectPublicKeyInfo (RFC 7469 §2.4), in curl's form."""

import binascii
from base64 import b64decode, b64encode
from hashlib import sha256
from typing import Final

_PREFIX: Final = "sha256//"
_DIGEST_BYTES: Final = 32
_SEQUENCE: Final = 0x30
_VERSION: Final = 0xA0
# RFC 5280 §4.1, between the version and the key: serialNumber, signature, issuer, validity, subject.
_FIELDS_BEFORE_KEY: Final = 5


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
    try:
        _, outer, _ = _element(certificate, 0)
        tag, start, _ = _element(certificate, outer)
        if tag != _SEQUENCE:
            raise ValueError("is not a certificate")
        tag, _, after = _element(certificate, start)
        position = after if tag == _VERSION else start
        for _ in range(_FIELDS_BEFORE_KEY):
            _, _, position = _element(certificate, position)
        _, _, end = _element(certificate, position)
    except IndexError:
        raise ValueError("is not a certificate") from None
    return sha256(certificate[position:end]).digest()


def _element(der: bytes, position: int) -> tuple[int, int, int]:
    """Returns the tag of the element at `position`, and its content's start and end (X.690 §8.1)."""
    tag, length, start = der[position], der[position + 1], position + 2
    if length & 0x80:
        count = length & 0x7F
        length = int.from_bytes(der[start : start + count])
        start += count
    if start + length > len(der):
        raise IndexError
    return tag, start, start + length
