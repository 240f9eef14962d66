"""The types of the settings: what a text, a number or a list of any source becomes."""

import re
import shlex
from collections.abc import Callable, Iterable
from ipaddress import IPv4Network, IPv6Network, ip_interface, ip_network
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema
from pydantic_settings import NoDecode

from nanonets_proxy.core.http.grammar import is_token
from nanonets_proxy.core.keys.api_key import ApiKey, KeyUnusable
from nanonets_proxy.core.net.addresses import (
    EgressProxy,
    Listener,
    Origin,
    is_host_name,
    parse_egress_proxy,
    parse_listener,
    parse_origin,
)
from nanonets_proxy.core.net.key_pins import parse_pin
from nanonets_proxy.core.ratelimit.scopes import ScopeRule
from nanonets_proxy.core.ratelimit.static_limits import StaticLimit
from nanonets_proxy.settings.model.quantities import Metavar

_WEIGHT = re.compile(r"[1-9][0-9]{0,2}|1000", re.ASCII)

_PATH_AND_QUERY = re.compile(r"/[!-\"$-~]*", re.ASCII)


def texts(value: Any) -> list[str]:
    """The items of a list setting: a TOML array, or a text with commas. An empty text is an empty list."""
    if isinstance(value, str):
        value = value.split(",") if value.strip() else []
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise ValueError("must be a text or a list of texts")
    items = [item.strip() for item in value]
    if "" in items:
        raise ValueError("has an empty item in its list")
    return items


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be a text, not {value!r}")  # noqa: TRY004  # only ValueError is reported
    return value.strip()


def _listeners(value: Any) -> tuple[Listener, ...]:
    items = texts(value)
    if not items:
        raise ValueError("must name at least one address")
    return tuple(map(parse_listener, items))


def _listeners_or_off(value: Any) -> tuple[Listener, ...]:
    # `false` is what TOML's writers, and YAML's `off` on its way here, make of it.
    return () if value is False or value in ("off", []) else _listeners(value)


def _network(item: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(item)
    except ValueError:
        pass
    try:
        meant = ip_interface(item).network
    except ValueError:
        raise ValueError(f"{item!r} is no network: write 10.0.0.0/8, fd00::/8, or one address") from None
    raise ValueError(f"{item!r} has bits behind its prefix: write {meant}")


def _host_pattern(item: str) -> str:
    if not is_host_name(item.removeprefix("*.")):
        raise ValueError(f"{item!r} is no host name: write proxy.example.com or *.example.com, without a port")
    return item.lower()


def _scope_rule(item: str) -> str:
    ScopeRule.parse(item)
    return item


def _pin(item: str) -> str:
    parse_pin(item)
    return item


def _lane_weight(item: str) -> tuple[str, int]:
    name, equals, number = item.rpartition("=")
    if not equals or not name.strip() or not _WEIGHT.fullmatch(number.strip()):
        raise ValueError(f"{item!r} does not read NAME=NUMBER, such as 10.0.0.7=4, with a number from 1 to 1000")
    return name.strip(), int(number)


def _sandbox_key(item: str) -> str:
    try:
        ApiKey.parse(item, "the sandbox")
    except KeyUnusable as error:
        raise ValueError(f"holds a key that {error.fault}") from None
    return item


def each(parse: Callable[[str], Any]) -> Callable[[Any], tuple[Any, ...]]:
    return lambda value: tuple(map(parse, texts(value)))


def _token_or_empty(value: Any) -> str:
    token = text(value)
    if token and not is_token(token):
        raise ValueError(f"{token!r} is no token: letters, digits and !#$%&'*+-.^_`|~ only")
    return token


def _path_or_none(value: Any) -> Path | None:
    """A path; `~` stands for the home directory, an empty text for none."""
    name = text(value)
    if "\0" in name:
        raise ValueError("is not a file name: it has a null byte in it")
    return Path(name).expanduser() if name else None


def _egress_proxy(value: Any) -> EgressProxy | None:
    if not isinstance(value, str):
        raise ValueError("must be a text")  # noqa: TRY004  # only ValueError is reported
    return parse_egress_proxy(value.strip()) if value.strip() else None


def _origin(value: Any) -> Origin:
    return parse_origin(text(value))


def _origin_or_none(value: Any) -> Origin | None:
    return parse_origin(text(value)) if text(value) else None


def _command_line(value: Any) -> str:
    line = text(value)
    try:
        shlex.split(line)
    except ValueError as error:
        raise ValueError(f"cannot be split into words: {str(error).lower()}") from None
    return line


def _path_and_query(value: Any) -> str:
    target = text(value)
    if target and not _PATH_AND_QUERY.fullmatch(target):
        raise ValueError(f"{target!r} is no path: write /api/v4/workflow_types")
    return target


def strings(values: Iterable[object]) -> list[str]:
    return [str(value) for value in values]


def _string_or_empty(value: object) -> str:
    return "" if value is None else str(value)


LIST_SCHEMA = {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "string"}]}
_TEXT_SCHEMA = {"type": "string"}

Listeners: TypeAlias = Annotated[
    tuple[Listener, ...],
    PlainValidator(_listeners),
    PlainSerializer(strings, return_type=list[str]),
    WithJsonSchema(LIST_SCHEMA),
    NoDecode,
    Metavar("ADDRESS"),
]
OptionalListeners: TypeAlias = Annotated[
    tuple[Listener, ...],
    PlainValidator(_listeners_or_off),
    PlainSerializer(lambda value: strings(value) or "off"),
    WithJsonSchema({"anyOf": [*LIST_SCHEMA["anyOf"], {"const": False}]}),
    NoDecode,
    Metavar("ADDRESS"),
]
Networks: TypeAlias = Annotated[
    tuple[IPv4Network | IPv6Network, ...],
    PlainValidator(each(_network)),
    PlainSerializer(strings, return_type=list[str]),
    WithJsonSchema(LIST_SCHEMA),
    NoDecode,
    Metavar("NETWORK"),
]
HostPatterns: TypeAlias = Annotated[
    tuple[str, ...],
    PlainValidator(each(_host_pattern)),
    PlainSerializer(strings, return_type=list[str]),
    WithJsonSchema(LIST_SCHEMA),
    NoDecode,
    Metavar("HOST"),
]
ScopeRules: TypeAlias = Annotated[
    tuple[str, ...],
    PlainValidator(each(_scope_rule)),
    PlainSerializer(strings, return_type=list[str]),
    WithJsonSchema(LIST_SCHEMA),
    NoDecode,
    Metavar("RULE"),
]
PublicKeyPins: TypeAlias = Annotated[
    tuple[str, ...],
    PlainValidator(each(_pin)),
    PlainSerializer(strings, return_type=list[str]),
    WithJsonSchema(LIST_SCHEMA),
    NoDecode,
    Metavar("PIN"),
]
Limits: TypeAlias = Annotated[
    tuple[StaticLimit, ...],
    PlainValidator(each(StaticLimit.parse)),
    PlainSerializer(strings, return_type=list[str]),
    WithJsonSchema(LIST_SCHEMA),
    NoDecode,
    Metavar("LIMIT"),
]
LaneWeights: TypeAlias = Annotated[
    tuple[tuple[str, int], ...],
    PlainValidator(each(_lane_weight)),
    PlainSerializer(lambda value: [f"{name}={weight}" for name, weight in value], return_type=list[str]),
    WithJsonSchema(LIST_SCHEMA),
    NoDecode,
    Metavar("WEIGHT"),
]
SandboxKeys: TypeAlias = Annotated[
    tuple[str, ...],
    PlainValidator(each(_sandbox_key)),
    PlainSerializer(strings, return_type=list[str]),
    WithJsonSchema(LIST_SCHEMA),
    NoDecode,
    Metavar("KEY"),
]
UpstreamOrigin: TypeAlias = Annotated[
    Origin,
    PlainValidator(_origin),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "format": "uri"}),
    NoDecode,
    Metavar("URL"),
]
OptionalEgressProxy: TypeAlias = Annotated[
    EgressProxy | None,
    PlainValidator(_egress_proxy),
    PlainSerializer(_string_or_empty, return_type=str),
    WithJsonSchema(_TEXT_SCHEMA),
    NoDecode,
    Metavar("URL"),
]
OptionalPath: TypeAlias = Annotated[
    Path | None,
    PlainValidator(_path_or_none),
    PlainSerializer(_string_or_empty, return_type=str),
    WithJsonSchema(_TEXT_SCHEMA),
    Metavar("PATH"),
]
OptionalOrigin: TypeAlias = Annotated[
    Origin | None,
    PlainValidator(_origin_or_none),
    PlainSerializer(_string_or_empty, return_type=str),
    WithJsonSchema(_TEXT_SCHEMA),
    NoDecode,
    Metavar("URL"),
]
CommandLine: TypeAlias = Annotated[
    str, PlainValidator(_command_line), WithJsonSchema(_TEXT_SCHEMA), Metavar("COMMAND")
]
PathAndQuery: TypeAlias = Annotated[
    str, PlainValidator(_path_and_query), WithJsonSchema(_TEXT_SCHEMA), Metavar("PATH")
]
Text: TypeAlias = Annotated[str, PlainValidator(text), WithJsonSchema(_TEXT_SCHEMA), Metavar("TEXT")]
Token: TypeAlias = Annotated[str, PlainValidator(_token_or_empty), WithJsonSchema(_TEXT_SCHEMA), Metavar("TOKEN")]
