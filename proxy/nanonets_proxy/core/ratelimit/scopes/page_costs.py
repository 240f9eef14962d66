"""What a request costs in a scope whose limit is in pages.

A caller may state the pages of its request in a header field, or the proxy counts them. Any other request costs the
mean of the scope, as far as pages are known there, else one page.
"""

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from nanonets_proxy.core.ratelimit.scopes.scope_table import ScopeRule
from nanonets_proxy.core.ratelimit.scopes.static_limits import PAGES, REQUESTS, StaticLimit
from nanonets_proxy.errors import BadRequest

MAX_PAGES = 10_000
"""More pages in one request are taken for a mistake."""

_PAGES = re.compile(rb"[1-9][0-9]{0,4}")
_MEMORY = 0.95  # how much of the mean stays after each request whose pages are known
_MAX_SCOPES = 1024  # callers choose parts of the names


class PageCosts:
    """The scopes whose limits are in pages, and the mean pages of their requests."""

    __slots__ = ("_field", "_means", "_patterns", "_units")

    def __init__(self, field: str, rules: Iterable[ScopeRule], limits: Iterable[StaticLimit]) -> None:
        """Takes the name of the field, for messages, and the rules and limits, some of which are in pages."""
        self._field = field
        self._patterns = [rule.scope_pattern for rule in rules if rule.unit == PAGES]
        self._patterns += [limit.scope for limit in limits if limit.unit == PAGES]
        self._units: dict[str, str] = {}
        self._means: dict[str, float] = {}

    def cost_of(self, scope: str, stated: bytes | None) -> float:
        """Returns the cost of a request; `stated` is the value of its field. Raises BadRequest for garbage."""
        pages = None if stated is None else self._parse(stated)
        if self.unit_of(scope) != PAGES:
            return 1
        if pages is None:
            return self._means.get(scope, 1)
        self.note(scope, pages)
        return pages

    def unit_of(self, scope: str) -> str:
        """Returns the unit of a scope's limit."""
        unit = self._units.get(scope)
        if unit is None:
            if len(self._units) >= _MAX_SCOPES:
                oldest = next(iter(self._units))
                del self._units[oldest]
                self._means.pop(oldest, None)
            is_paged = any(fnmatchcase(scope, pattern) for pattern in self._patterns)
            unit = self._units[scope] = PAGES if is_paged else REQUESTS
        return unit

    def note(self, scope: str, pages: int) -> None:
        """Notes the pages of a request, for the mean of its scope. The scope's limit must be in pages."""
        mean = self._means.get(scope, pages)
        self._means[scope] = _MEMORY * mean + (1 - _MEMORY) * pages

    @property
    def in_use(self) -> bool:
        """Whether any limit is in pages."""
        return bool(self._patterns)

    def _parse(self, stated: bytes) -> int:
        if not _PAGES.fullmatch(stated) or int(stated) > MAX_PAGES:
            raise BadRequest(f"The field {self._field} must be the number of pages, from 1 to {MAX_PAGES}.")
        return int(stated)
