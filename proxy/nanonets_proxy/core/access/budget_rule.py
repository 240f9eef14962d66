"""The rule of a daily budget, as the settings write it."""

import re
from dataclasses import dataclass
from typing import Final, Self

from nanonets_proxy.core.access.caller_names import check_name_in_settings

_RULE: Final = re.compile(r"(?:(?P<caller>\S+):\s+)?(?P<count>[0-9]{1,12})", re.ASCII)


@dataclass(frozen=True, slots=True)
class BudgetRule:
    """A caller's requests per day. If `caller` is None, for each caller without a rule of its own."""

    caller: str | None
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parses `5000` or `billing: 5000`. Raises ValueError with a sentence that says what is wrong."""
        match = _RULE.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"{text!r} is not a daily budget: write 5000, or billing: 5000")
        caller = match["caller"]
        return cls(caller and check_name_in_settings(caller), int(match["count"]))

    def __str__(self) -> str:
        return str(self.count) if self.caller is None else f"{self.caller}: {self.count}"
