"""Protobuf's wire format, as far as OTLP's messages need it (https://protobuf.dev/programming-guides/encoding/).

The numbers of the fields are those of https://github.com/open-telemetry/opentelemetry-proto, release 1. The package
`opentelemetry-proto` encodes the same, and the tests decode with it. But its messages take 31 us of CPU time for
the two spans of a request, where `spans.py` takes 2 us, and its import takes 5 MiB.
"""

import struct
from collections.abc import Iterable
from typing import Final
from uuid import uuid4

from nanonets_proxy import __version__

_VARINT, _FIXED64, _BYTES, FIXED32 = 0, 1, 2, 5
_CONTINUED: Final = 0x80
_MOST_PREFIXES: Final = 1024

_INSTANCE: Final = str(uuid4())
"""Distinguishes this process from others with the same attributes, whose sums would otherwise be mixed up."""


def varint(number: int) -> bytes:
    """Encodes a number that is not negative."""
    encoded = bytearray()
    while number >= _CONTINUED:
        encoded.append(number & 0x7F | _CONTINUED)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def zigzag(number: int) -> bytes:
    """Encodes a number of type sint32."""
    return varint(number * 2 if number >= 0 else -number * 2 - 1)


def tag(field: int, wire_type: int = _BYTES) -> bytes:
    return varint(field << 3 | wire_type)


def message(field: int, *parts: bytes) -> bytes:
    """Encodes a field of type string, bytes or message, whose content comes in parts."""
    content = b"".join(parts)
    return tag(field) + varint(len(content)) + content


def text(field: int, value: str) -> bytes:
    """Encodes a string. Lone surrogates, which UTF-8 does not have, are escaped."""
    return message(field, value.encode("utf-8", "backslashreplace"))


def number(field: int, value: int) -> bytes:
    """Encodes an enum, a bool or an integer that is not negative."""
    return tag(field, _VARINT) + varint(value)


def fixed64(field: int, value: int) -> bytes:
    return tag(field, _FIXED64) + struct.pack("<q", value)


def double(field: int, value: float) -> bytes:
    return tag(field, _FIXED64) + struct.pack("<d", value)


def attribute(field: int, key: str, value: str | int) -> bytes:
    """Encodes a `KeyValue`."""
    any_value = text(1, value) if isinstance(value, str) else number(3, value)
    return message(field, text(1, key), message(2, any_value))


class Prefixes(dict[int, bytes]):
    """The bytes before a string or message, by its length: tags and lengths. Those of usual lengths are kept."""

    def __init__(self, *fields: int, before: bytes = b"") -> None:
        """`fields` are the numbers of nested fields, the outermost first.

        `before` comes first in the content of the outermost field.
        """
        super().__init__()
        self._fields = fields
        self._before = before

    def __missing__(self, length: int) -> bytes:
        prefix = b""
        for depth, field in reversed(list(enumerate(self._fields))):
            if not depth:
                prefix = self._before + prefix
            prefix = tag(field) + varint(len(prefix) + length) + prefix
        if len(self) < _MOST_PREFIXES:
            self[length] = prefix
        return prefix


def attribute_prefixes(field: int, key: str) -> Prefixes:
    """Returns the prefixes of attributes with a string value."""
    return Prefixes(field, 2, 1, before=text(1, key))


def resource(environment: str) -> bytes:
    """Encodes the resource of an environment, in `ResourceSpans` or `ResourceMetrics`. Empty: of the process."""
    attributes = {
        "service.name": "nanonets-proxy",
        "service.version": __version__,
        "service.instance.id": _INSTANCE,
    }
    if environment:
        attributes["deployment.environment.name"] = environment
    return message(1, *(attribute(1, key, value) for key, value in attributes.items()))


SCOPE: Final = message(1, text(1, "nanonets-proxy"), text(2, __version__))
"""The instrumentation scope, in `ScopeSpans` or `ScopeMetrics`."""


def request(environment: str, items: Iterable[bytes]) -> bytes:
    """Encodes an export of encoded spans or metrics, which are fields of `ScopeSpans` or `ScopeMetrics`.

    The items may be large, so they are copied once.
    """
    origin, content = resource(environment), (SCOPE, *items)
    scoped = tag(2) + varint(sum(map(len, content)))
    length = len(origin) + len(scoped) + sum(map(len, content))
    return b"".join((tag(1), varint(length), origin, scoped, *content))
