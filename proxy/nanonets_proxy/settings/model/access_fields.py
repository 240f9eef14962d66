"""The types of the boundary's settings."""

from typing import Annotated, Any, TypeAlias

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema
from pydantic_settings import NoDecode

from nanonets_proxy.core.access.access_rules import AccessRule
from nanonets_proxy.core.access.caller_tokens import CallersByToken, CallerToken
from nanonets_proxy.core.access.daily_budget import BudgetRule
from nanonets_proxy.settings.model.fields import LIST_SCHEMA, each, strings
from nanonets_proxy.settings.model.quantities import Metavar


def _caller_tokens(value: Any) -> tuple[CallerToken, ...]:
    tokens: tuple[CallerToken, ...] = each(CallerToken.parse)(value)
    CallersByToken(tokens)
    return tokens


def _policy_rule(item: str) -> str:
    AccessRule.parse(item)
    return item


def _budget_rule(item: str) -> str:
    BudgetRule.parse(item)
    return item


def _user_id(item: str) -> str:
    if not (item.isascii() and item.isdigit() and int(item) < 2**32):
        raise ValueError(f"{item!r} is no user's number: write 1000")
    return item


CallerTokens: TypeAlias = Annotated[
    tuple[CallerToken, ...],
    PlainValidator(_caller_tokens),
    PlainSerializer(strings, return_type=list[str]),
    WithJsonSchema(LIST_SCHEMA),
    NoDecode,
    Metavar("CALLER"),
]
PolicyRules: TypeAlias = Annotated[
    tuple[str, ...],
    PlainValidator(each(_policy_rule)),
    PlainSerializer(strings, return_type=list[str]),
    WithJsonSchema(LIST_SCHEMA),
    NoDecode,
    Metavar("RULE"),
]
BudgetRules: TypeAlias = Annotated[
    tuple[str, ...],
    PlainValidator(each(_budget_rule)),
    PlainSerializer(strings, return_type=list[str]),
    WithJsonSchema(LIST_SCHEMA),
    NoDecode,
    Metavar("BUDGET"),
]
UserIds: TypeAlias = Annotated[
    tuple[str, ...],
    PlainValidator(each(_user_id)),
    PlainSerializer(strings, return_type=list[str]),
    WithJsonSchema(LIST_SCHEMA),
    NoDecode,
    Metavar("UID"),
]
