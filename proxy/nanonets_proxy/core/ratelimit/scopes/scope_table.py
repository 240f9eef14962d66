"""Which of the upstream's limits a request counts against.

A *scope* is the set of requests that one limit applies to. Rules choose the scope by method and path. The first
rule that matches applies; a request without a matching rule counts against the account. A rule that ends with
`pages` says that the limit is in pages:

    POST /api/v2/OCR/Model/{model}/LabelFile -> v2:predict:{model}
    POST /api/v4/documents                   -> documents pages
    *    /api/v2/**                          -> v2:other

`core/http/path_pattern.py` describes the paths.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Self

from nanonets_proxy.core.http.path_pattern import PLACEHOLDER, path_expression
from nanonets_proxy.core.http.target import decode_unreserved
from nanonets_proxy.core.ratelimit.scopes.static_limits import PAGES, REQUESTS

ACCOUNT = "account"
"""The scope of requests without a matching rule: the vendor limits v4 by account, "based on your plan"."""

MAX_SCOPE_CHARS = 128
"""Longer names are cut, since callers choose parts of the names, and logs and metrics show them."""

DEFAULT_SCOPE_RULES: tuple[str, ...] = (
    "POST /api/v2/OCR/Model/{model}/LabelFile -> v2:predict:{model}",
    "POST /api/v2/OCR/Model/{model}/LabelUrls -> v2:predict:{model}",
    "POST /api/v2/ImageCategorization/Model/{model}/LabelFile -> v2:predict:{model}",
    "POST /api/v2/ImageCategorization/Model/{model}/LabelUrls -> v2:predict:{model}",
    "POST /api/v2/ObjectDetection/Model/{model}/LabelFile -> v2:predict:{model}",
    "POST /api/v2/ObjectDetection/Model/{model}/LabelUrls -> v2:predict:{model}",
    "* /api/v2/** -> v2:other",
)
"""v2 limits predictions by model. Other v2 requests must not wait for a prediction's limit."""

_RULE = re.compile(r"\s*(?P<method>\S+)\s+(?P<pattern>\S+)\s+->\s+(?P<scope>\S+)(?:\s+(?P<unit>\S+))?\s*")
_METHOD = re.compile(r"\*|[A-Z][A-Z-]*")
_SCOPE = re.compile(r"(?:[A-Za-z0-9:._-]|\{[A-Za-z_][A-Za-z0-9_]*\})+")


@dataclass(frozen=True, slots=True)
class ScopeRule:
    """Assigns requests with this method and path pattern to this scope. Raises ValueError for an invalid rule."""

    method: str
    pattern: str
    scope: str
    unit: str = REQUESTS
    """The unit of the scope's limit: `requests` or `pages`."""
    expression: str = field(init=False, repr=False, compare=False)
    """The regular expression for a request target, up to the end of its path or of the pattern before `/**`."""
    names: tuple[str, ...] = field(init=False, repr=False, compare=False)
    """The names of the expression's groups."""

    def __post_init__(self) -> None:
        if not _METHOD.fullmatch(self.method):
            raise ValueError(f"{self.method!r} is not a method: use capitals, or * for any method")
        expression, names = path_expression(self.pattern)
        if not _SCOPE.fullmatch(self.scope):
            raise ValueError(f"{self.scope!r} is not a scope name: use letters, digits, : . _ - and {{name}}")
        if self.unit not in (REQUESTS, PAGES):
            raise ValueError(f"the unit must be requests or pages, not {self.unit!r}")
        for name in PLACEHOLDER.findall(self.scope):
            if name not in names:
                raise ValueError(f"the path {self.pattern!r} has no {{{name}}} for the scope")
        object.__setattr__(self, "expression", expression)
        object.__setattr__(self, "names", names)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parses `METHOD /path/{name}/** -> scope:{name} [UNIT]`. Raises ValueError with a sentence."""
        match = _RULE.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is not of the form METHOD /path -> scope")
        return cls(match["method"], match["pattern"], match["scope"], match["unit"] or REQUESTS)

    @property
    def scope_pattern(self) -> str:
        """The names of its scopes, in which * stands for any text."""
        return PLACEHOLDER.sub("*", self.scope)

    def applies_to(self, method: str) -> bool:
        return self.method in ("*", method)

    def __str__(self) -> str:
        unit = "" if self.unit == REQUESTS else f" {self.unit}"
        return f"{self.method} {self.pattern} -> {self.scope}{unit}"


class ScopeTable:
    """The rules in order of precedence, as one regular expression per method.

    In this expression, each rule ends with an empty group. So the last group of a match identifies the rule.
    """

    __slots__ = ("_by_method", "_for_others")

    def __init__(self, rules: Iterable[ScopeRule]) -> None:
        rules = tuple(rules)
        methods = {"*", *(rule.method for rule in rules)}
        self._by_method = {
            method: _combine(rule for rule in rules if rule.applies_to(method)) for method in methods
        }
        self._for_others = self._by_method["*"]

    def classify(self, method: str, raw_path: str) -> str:
        """Returns the scope of a request; `raw_path` is its target as sent, in origin form (RFC 9112 §3.2.1)."""
        if "%" in raw_path:
            raw_path = decode_unreserved(raw_path.partition("?")[0])
        match_first, scopes = self._by_method.get(method, self._for_others)
        match = match_first(raw_path)
        if match is None:
            return ACCOUNT
        scope, groups = scopes[match.lastindex]
        return (scope % match.group(*groups))[:MAX_SCOPE_CHARS] if groups else scope


_Combined = tuple[Callable[[str], re.Match[str] | None], dict[int | None, tuple[str, tuple[int, ...]]]]


def _combine(rules: Iterable[ScopeRule]) -> _Combined:
    """Returns one expression for all rules, and a table: last group of a match -> (scope, groups to fill in)."""
    expressions: list[str] = []
    scopes: dict[int | None, tuple[str, tuple[int, ...]]] = {}
    group = 0
    for rule in rules:
        expressions.append(rule.expression + "()")
        used = tuple(group + 1 + rule.names.index(name) for name in PLACEHOLDER.findall(rule.scope))
        group += len(rule.names) + 1
        scopes[group] = (PLACEHOLDER.sub("%s", rule.scope) if used else rule.scope[:MAX_SCOPE_CHARS], used)
    return re.compile("|".join(expressions) or "(?!)").match, scopes
