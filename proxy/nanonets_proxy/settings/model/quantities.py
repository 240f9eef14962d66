"""Types of settings for durations, sizes, counts, words and switches.

All parsers raise ValueError for other values.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*([A-Za-z]*)", re.ASCII)

MIN_DURATION_S = 0.001
MAX_DURATION_S = 365 * 86400

DURATION_PATTERN = r"^\s*([0-9]+(\.[0-9]+)?|\.[0-9]+)\s*(ms|s|m|h|d)?\s*$"
SIZE_PATTERN = r"^\s*([0-9]+(\.[0-9]+)?|\.[0-9]+)\s*([kKmMgGtT][iI]?)?[bB]?\s*$"


@dataclass(frozen=True, slots=True)
class Metavar:
    """Names the value of a flag in `--help`."""

    name: str


@dataclass(frozen=True, slots=True)
class ValueOf:
    """Makes a field a value that `parse` reads from any source, and `format` writes. `schema` is its JSON schema.

    pydantic's own markers for this inspect each function, which takes longer than all else about a field.
    """

    parse: Callable[[Any], Any]
    schema: JsonSchemaValue
    format: Callable[[Any], Any] | None = None
    """None: the value is written as it is."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        written = None if self.format is None else core_schema.plain_serializer_function_ser_schema(self.format)
        return core_schema.no_info_plain_validator_function(self.parse, serialization=written)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return self.schema


def _split(value: str) -> tuple[float, str] | None:
    match = _QUANTITY.fullmatch(value.strip())
    return (float(match[1]), match[2]) if match else None


def shown(value: object) -> str:
    """Returns a value as TOML writes it."""
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def parse_delay(value: Any) -> float:
    """Returns seconds, from a number of seconds or a string such as `500ms`, `30s`, `5m`, `1h`. Allows zero."""
    if _is_number(value):
        seconds = float(value)
    elif isinstance(value, str) and (parts := _split(value)) and (parts[1] or "s") in _SECONDS:
        seconds = parts[0] * _SECONDS[parts[1] or "s"]
    else:
        raise ValueError(f"{shown(value)} is not a duration: write seconds, or 500ms, 30s, 5m, 1h")
    if not 0 <= seconds <= MAX_DURATION_S:
        raise ValueError(f"must be from 0 to {MAX_DURATION_S // 86400} days, not {shown(value)}")
    return seconds


def parse_duration(value: Any) -> float:
    """Returns seconds like `parse_delay`, but at least a millisecond."""
    seconds = parse_delay(value)
    if seconds < MIN_DURATION_S:
        raise ValueError(f"must be at least 1ms, not {shown(value)}")
    return seconds


def format_duration(seconds: float) -> str:
    """Returns the shortest string that reads back as the same duration."""
    for unit in ("h", "m"):
        if seconds >= _SECONDS[unit] and seconds % _SECONDS[unit] == 0:
            return f"{seconds / _SECONDS[unit]:.0f}{unit}"
    return f"{seconds:.0f}s" if seconds == int(seconds) else f"{seconds!r}s"


def parse_size(value: Any) -> int:
    """Returns bytes, from a whole number of bytes or a string such as `64MiB`, `1GB`."""
    if isinstance(value, int) and not isinstance(value, bool):
        size = float(value)
    elif isinstance(value, str) and (parts := _split(value)) and parts[1].lower() in _BYTES:
        size = parts[0] * _BYTES[parts[1].lower()]
    else:
        raise ValueError(f"{shown(value)} is not a size: write bytes, or 512KiB, 64MiB, 1GB")
    if not 0 <= size < 2**63 or size != int(size):
        raise ValueError(f"must be a whole number of bytes, not {shown(value)}")
    return int(size)


def format_size(size: int) -> str:
    """Returns the shortest string that reads back as the same size."""
    for unit, name in (("tib", "TiB"), ("gib", "GiB"), ("mib", "MiB"), ("kib", "KiB")):
        if size and size % _BYTES[unit] == 0:
            return f"{size // _BYTES[unit]}{name}"
    return str(size)


@dataclass(frozen=True, slots=True)
class Count:
    """Makes a field a whole number from `low` to `high`."""

    low: int
    high: int

    def parse(self, value: Any) -> int:
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value.strip(), re.ASCII):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"{shown(value)} is not a whole number")  # noqa: TRY004  # pydantic reports only ValueError
        if not self.low <= value <= self.high:
            raise ValueError(f"must be between {self.low} and {self.high}, not {value}")
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.parse)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "integer", "minimum": self.low, "maximum": self.high}


@dataclass(frozen=True, slots=True)
class OneOf:
    """Makes a field one of `words`. `make` converts the word to the value."""

    words: tuple[str, ...]
    make: Callable[[str], Any] = str

    def parse(self, value: Any) -> Any:
        if value not in self.words:
            raise ValueError(f"must be {', '.join(self.words[:-1])} or {self.words[-1]}, not {shown(value)}")
        return self.make(value)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.parse, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "enum": list(self.words)}


def parse_switch(value: Any) -> bool:
    """Returns a boolean, from a TOML boolean or one of true, yes, on, 1, false, no, off, 0."""
    word = str(value).strip().lower()
    if word in ("true", "yes", "on", "1"):
        return True
    if word in ("false", "no", "off", "0"):
        return False
    raise ValueError(f"must be true or false, not {shown(value)}")


def parse_share(value: Any) -> float:
    """Returns a number from 0 to 1."""
    try:
        share = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        share = math.nan
    if not 0 <= share <= 1:
        raise ValueError(f"must be a number from 0 to 1, not {shown(value)}")
    return share


Duration: TypeAlias = Annotated[
    float,
    ValueOf(
        parse_duration,
        {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": DURATION_PATTERN}]},
        format_duration,
    ),
    Metavar("DURATION"),
]

Delay: TypeAlias = Annotated[
    float,
    ValueOf(
        parse_delay,
        {"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": DURATION_PATTERN}]},
        format_duration,
    ),
    Metavar("DURATION"),
]

Size: TypeAlias = Annotated[
    int,
    ValueOf(
        parse_size,
        {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": SIZE_PATTERN}]},
        format_size,
    ),
    Metavar("SIZE"),
]

Switch: TypeAlias = Annotated[bool, ValueOf(parse_switch, {"type": "boolean"})]

Share: TypeAlias = Annotated[
    float, ValueOf(parse_share, {"type": "number", "minimum": 0, "maximum": 1}), Metavar("SHARE")
]
