"""What a request costs in a scope whose limit is in pages.

A caller may state the pages of its request in a header field. A request without the field costs the mean of the
scope, as far as callers state pages there, else one page.
"""

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from nanonets_proxy.core.ratelimit.scopes import ScopeRule
from nanonets_proxy.core.ratelimit.static_limits import PAGES, StaticLimit
from nanonets_proxy.errors import BadRequest

MAX_PAGES = 10_000
"""More pages in one request are taken for a mistake."""

_PAGES = re.compile(rb"[1-9][0-9]{0,4}")
_MEMORY = 0.95  # how much of the mean stays after each request that states its pages
_MAX_SCOPES = 1024  # callers choose parts of the names


class PageCosts:
    """The scopes whose limits are in pages, and the mean pages of their requests."""

    __slots__ = ("_field", "_means", "_patterns")

    def __init__(self, field: str, rules: Iterable[ScopeRule], limits: Iterable[StaticLimit]) -> None:
        """Takes the name of the field, for messages, and the rules and limits, some of which are in pages."""
        self._field = field
        self._patterns = [rule.scope_pattern for rule in rules if rule.unit == PAGES]
        self._patterns += [limit.scope for limit in limits if limit.unit == PAGES]
        self._means: dict[str, float | None] = {}  # None: the scope's limit is not in pages

    def cost_of(self, scope: str, stated: bytes | None) -> float:
        """Returns the cost of a request; `stated` is the value of its field. Raises BadRequest for garbage."""
        pages = None if stated is None else self._parse(stated)
        if scope in self._means:
            mean = self._means[scope]
        else:
            if len(self._means) >= _MAX_SCOPES:
                del self._means[next(iter(self._means))]
            is_paged = any(fnmatchcase(scope, pattern) for pattern in self._patterns)
            mean = self._means[scope] = 1.0 if is_paged else None
            if is_paged and pages is not None:
                mean = self._means[scope] = float(pages)
        if mean is None:
            return 1
        if pages is None:
            return mean
        self._means[scope] = _MEMORY * mean + (1 - _MEMORY) * pages
        return pages

    def _parse(self, stated: bytes) -> int:
        if not _PAGES.fullmatch(stated) or int(stated) > MAX_PAGES:
            raise BadRequest(f"The field {self._field} must be the number of pages, from 1 to {MAX_PAGES}.")
        return int(stated)
