"""Types of settings whose values are strings or lists of strings in every source."""

import re
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema
from pydantic_settings import NoDecode

from nanonets_proxy.core.access.access_rules import AccessRule
from nanonets_proxy.core.access.budget_rule import BudgetRule
from nanonets_proxy.core.access.caller_names import check_name_in_settings
from nanonets_proxy.core.access.caller_tokens import CallersByToken, CallerToken
from nanonets_proxy.core.http.grammar import is_token
from nanonets_proxy.core.http.path_pattern import check_path_pattern
from nanonets_proxy.core.keys.api_key import ApiKey, KeyUnusable
from nanonets_proxy.core.net.addresses import (
    EgressProxy,
    Listener,
    Origin,
    is_host_name,
    is_ip_address,
    parse_collector,
    parse_egress_proxy,
    parse_listener,
    parse_origin,
)
from nanonets_proxy.core.net.key_pins import format_pin, parse_pin
from nanonets_proxy.core.net.redis_address import RedisAddress
from nanonets_proxy.core.net.webhook_url import WebhookUrl, parse_webhook_url
from nanonets_proxy.core.ratelimit.scopes.scope_table import ScopeRule
from nanonets_proxy.core.ratelimit.scopes.static_limits import StaticLimit
from nanonets_proxy.keys.files import shown_path
from nanonets_proxy.settings.model.quantities import Metavar, ValueOf, shown

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\*?", re.ASCII)
_WEIGHT = re.compile(r"[1-9][0-9]{0,2}|1000", re.ASCII)
_PATH_AND_QUERY = re.compile(r"/[!-\"$-~]*", re.ASCII)
_MAX_USER_ID = 2**32 - 1


def parse_string(value: Any, *, is_secret: bool = False) -> str:
    """Returns a string without the spaces around it. Raises ValueError for other types.

    `is_secret`: the error must not show the value.
    """
    if not isinstance(value, str):
        raise ValueError("must be a string" if is_secret else f"must be a string, not {shown(value)}")  # noqa: TRY004  # pydantic reports only ValueError
    return value.strip()


def _parse_list(value: Any) -> list[str]:
    """Returns the items of a TOML array or of a string with commas. An empty string is an empty list."""
    if isinstance(value, str):
        value = value.split(",") if value.strip() else []
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise ValueError("must be a string or a list of strings")
    items = [item.strip() for item in value]
    if "" in items:
        raise ValueError("has an empty item in its list")
    return items


def _accept_any(_: tuple[Any, ...]) -> None:
    pass


@dataclass(frozen=True, slots=True)
class ListOf:
    """Makes a field a tuple of items that `parse_item` reads and `format_item` writes.

    `check_items` raises ValueError when items are valid one by one but not together.
    """

    parse_item: Callable[[str], Any]
    format_item: Callable[[Any], str] = str
    check_items: Callable[[tuple[Any, ...]], object] = _accept_any

    def parse(self, value: Any) -> tuple[Any, ...]:
        items = tuple(map(self.parse_item, _parse_list(value)))
        self.check_items(items)
        return items

    def format(self, items: Iterable[Any]) -> list[str]:
        return [self.format_item(item) for item in items]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.parse, serialization=core_schema.plain_serializer_function_ser_schema(self.format)
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "string"}]}


@dataclass(frozen=True, slots=True)
class StringOf:
    """Makes a field a value that `parse_value` reads from a string. `format_value` writes it, or "" for None."""

    parse_value: Callable[[str], Any]
    is_optional: bool = False
    """Whether an empty string is None."""
    is_secret: bool = False
    """Whether the string may hold a password, so that no error shows it."""
    json_format: str = ""
    """The `format` of the JSON schema, if it has one."""
    format_value: Callable[[Any], str] = str

    def parse(self, value: Any) -> Any:
        text = parse_string(value, is_secret=self.is_secret)
        return self.parse_value(text) if text or not self.is_optional else None

    def format(self, value: object) -> str:
        return "" if value is None else self.format_value(value)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.parse, serialization=core_schema.plain_serializer_function_ser_schema(self.format)
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "format": self.json_format} if self.json_format else {"type": "string"}


def _require_listener(listeners: tuple[Listener, ...]) -> None:
    if not listeners:
        raise ValueError("must name at least one address")


_LISTENERS = ListOf(parse_listener, check_items=_require_listener)


def _listeners_or_off(value: Any) -> tuple[Listener, ...]:
    # TOML and YAML writers turn `off` into `false`.
    return () if value is False or value in ("off", []) else _LISTENERS.parse(value)


def _network(item: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(item)
    except ValueError:
        pass
    try:
        enclosing = ip_interface(item).network
    except ValueError:
        raise ValueError(f"{item!r} is not a network: write 10.0.0.0/8, fd00::/8, or one address") from None
    raise ValueError(f"{item!r} has address bits set after its prefix: write {enclosing}")


def _host_pattern(item: str) -> str:
    if is_ip_address(address := item.removeprefix("[").removesuffix("]")) and "%" not in address:
        return str(ip_address(address))
    if not is_host_name(item.removeprefix("*.")):
        raise ValueError(f"{item!r} is not a host name: write proxy.example.com or *.example.com, without a port")
    return item.lower()


def _variable_pattern(item: str) -> str:
    if not _VARIABLE.fullmatch(item):
        raise ValueError(
            f"{item!r} is not the name of a variable: write VAULT_TOKEN, or AWS_* for all that begin so"
        )
    return item


def _user_id(item: str) -> int:
    if not (item.isascii() and item.isdigit() and int(item) <= _MAX_USER_ID):
        raise ValueError(f"{item!r} is not a user id: write a number such as 1000")
    return int(item)


def _lane_weight(item: str) -> tuple[str, int]:
    name, equals, number = item.rpartition("=")
    if not equals or not name.strip() or not _WEIGHT.fullmatch(number.strip()):
        raise ValueError(f"{item!r} is not NAME=NUMBER, such as 10.0.0.7=4, with a number from 1 to 1000")
    return check_name_in_settings(name.strip()), int(number)


def _format_lane_weight(item: tuple[str, int]) -> str:
    name, weight = item
    return f"{name}={weight}"


def _sandbox_key(item: str) -> str:
    try:
        ApiKey.parse(item, "the sandbox")
    except KeyUnusable as error:
        raise ValueError(f"holds a key that {error.fault}") from None
    return item


def _token_or_empty(value: str) -> str:
    if value and not is_token(value):
        raise ValueError(f"{value!r} is not a token: use only letters, digits and !#$%&'*+-.^_`|~")
    return value


def _path(value: str) -> Path:
    """Returns the path, with `~` expanded to the home directory."""
    if "\0" in value:
        raise ValueError("is not a file name: it contains a null byte")
    return Path(value).expanduser()


def _command_line(value: str) -> str:
    try:
        shlex.split(value)
    except ValueError as error:
        raise ValueError(f"cannot be split into words: {str(error).lower()}") from None
    return value


def _path_and_query(value: str) -> str:
    if value and not _PATH_AND_QUERY.fullmatch(value):
        raise ValueError(f"{value!r} is not a path: write /api/v4/workflow_types")
    return value


Listeners: TypeAlias = Annotated[tuple[Listener, ...], _LISTENERS, NoDecode, Metavar("ADDRESS")]
OptionalListeners: TypeAlias = Annotated[
    tuple[Listener, ...],
    ValueOf(
        _listeners_or_off,
        {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "string"}, {"const": False}]},
        lambda value: _LISTENERS.format(value) or "off",
    ),
    NoDecode,
    Metavar("ADDRESS"),
]
Networks: TypeAlias = Annotated[
    tuple[IPv4Network | IPv6Network, ...], ListOf(_network), NoDecode, Metavar("NETWORK")
]
HostPatterns: TypeAlias = Annotated[tuple[str, ...], ListOf(_host_pattern), NoDecode, Metavar("HOST")]
PathPatterns: TypeAlias = Annotated[tuple[str, ...], ListOf(check_path_pattern), NoDecode, Metavar("PATH")]
UserIds: TypeAlias = Annotated[tuple[int, ...], ListOf(_user_id), NoDecode, Metavar("UID")]
CallerTokens: TypeAlias = Annotated[
    tuple[CallerToken, ...],
    ListOf(CallerToken.parse, check_items=CallersByToken),
    NoDecode,
    Metavar("CALLER"),
]
AccessRules: TypeAlias = Annotated[tuple[AccessRule, ...], ListOf(AccessRule.parse), NoDecode, Metavar("RULE")]
BudgetRules: TypeAlias = Annotated[tuple[BudgetRule, ...], ListOf(BudgetRule.parse), NoDecode, Metavar("BUDGET")]
ScopeRules: TypeAlias = Annotated[tuple[ScopeRule, ...], ListOf(ScopeRule.parse), NoDecode, Metavar("RULE")]
Limits: TypeAlias = Annotated[tuple[StaticLimit, ...], ListOf(StaticLimit.parse), NoDecode, Metavar("LIMIT")]
LaneWeights: TypeAlias = Annotated[
    tuple[tuple[str, int], ...], ListOf(_lane_weight, _format_lane_weight), NoDecode, Metavar("WEIGHT")
]
PublicKeyPins: TypeAlias = Annotated[tuple[bytes, ...], ListOf(parse_pin, format_pin), NoDecode, Metavar("PIN")]
SandboxKeys: TypeAlias = Annotated[tuple[str, ...], ListOf(_sandbox_key), NoDecode, Metavar("KEY")]

UpstreamOrigin: TypeAlias = Annotated[Origin, StringOf(parse_origin, json_format="uri"), NoDecode, Metavar("URL")]
OptionalOrigin: TypeAlias = Annotated[
    Origin | None, StringOf(parse_origin, is_optional=True), NoDecode, Metavar("URL")
]
CollectorOrigin: TypeAlias = Annotated[
    Origin | None, StringOf(parse_collector, is_optional=True), NoDecode, Metavar("URL")
]
OptionalEgressProxy: TypeAlias = Annotated[
    EgressProxy | None, StringOf(parse_egress_proxy, is_optional=True, is_secret=True), NoDecode, Metavar("URL")
]
OptionalWebhookUrl: TypeAlias = Annotated[
    WebhookUrl | None, StringOf(parse_webhook_url, is_optional=True, is_secret=True), NoDecode, Metavar("URL")
]
OptionalRedis: TypeAlias = Annotated[
    RedisAddress | None, StringOf(RedisAddress.parse, is_optional=True, is_secret=True), NoDecode, Metavar("URL")
]
OptionalPath: TypeAlias = Annotated[Path | None, StringOf(_path, is_optional=True), Metavar("PATH")]
SecretPath: TypeAlias = Annotated[
    Path | None, StringOf(_path, is_optional=True, format_value=shown_path), Metavar("PATH")
]
"""The path of a file that holds a secret."""
PathAndQuery: TypeAlias = Annotated[str, StringOf(_path_and_query), Metavar("PATH")]
VariablePatterns: TypeAlias = Annotated[tuple[str, ...], ListOf(_variable_pattern), NoDecode, Metavar("VARIABLE")]
CommandLine: TypeAlias = Annotated[str, StringOf(_command_line), Metavar("COMMAND")]
Text: TypeAlias = Annotated[str, StringOf(str), Metavar("TEXT")]
HttpToken: TypeAlias = Annotated[str, StringOf(_token_or_empty), Metavar("NAME")]
"""A token of RFC 9110 §5.6.2, such as a field name."""
