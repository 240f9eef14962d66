"""Reads the parts of a certificate that the proxy needs: its public key, and its validity (RFC 5280 §4.1)."""

import re
from calendar import timegm
from typing import Final

_SEQUENCE: Final = 0x30
_VERSION: Final = 0xA0
# Behind the version: serialNumber, signature, issuer, validity, subject, subjectPublicKeyInfo.
_VALIDITY: Final = 3
_KEY: Final = 5
_UTC_TIME: Final = 0x17
_TIME: Final = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})Z")
_CENTURY: Final = 50  # §4.1.2.5.1: a two-digit year of 50 or more is one of 19YY


def public_key_info(certificate: bytes) -> bytes:
    """Returns a DER certificate's SubjectPublicKeyInfo. Raises ValueError if it cannot be read."""
    position, _, end = _field(certificate, _KEY)
    return certificate[position:end]


def validity(certificate: bytes) -> tuple[float, float]:
    """Returns the first and the last second of a DER certificate's validity, in Unix time. Raises ValueError."""
    _, start, _ = _field(certificate, _VALIDITY)
    try:
        tag, content, after = _element(certificate, start)
        begins = _time(tag, certificate[content:after])
        tag, content, end = _element(certificate, after)
    except IndexError:
        raise ValueError("is not a certificate") from None
    return begins, _time(tag, certificate[content:end])


def _time(tag: int, content: bytes) -> float:
    text = content.decode("ascii", "replace")
    if tag == _UTC_TIME:
        text = ("19" if text[:2] >= str(_CENTURY) else "20") + text
    if (parts := _TIME.fullmatch(text)) is None:
        raise ValueError("is not a certificate")
    return float(timegm(tuple(map(int, parts.groups()))))


def _field(certificate: bytes, index: int) -> tuple[int, int, int]:
    """Returns the positions of a field, of its content and of its end. Raises ValueError."""
    try:
        _, outer, _ = _element(certificate, 0)
        tag, start, _ = _element(certificate, outer)
        if tag != _SEQUENCE:
            raise ValueError("is not a certificate")
        tag, _, after = _element(certificate, start)
        position = after if tag == _VERSION else start
        for _ in range(index):
            _, _, position = _element(certificate, position)
        _, content, end = _element(certificate, position)
    except IndexError:
        raise ValueError("is not a certificate") from None
    return position, content, end


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
