"""Which refusals may concern only the refused request. The first row that applies decides:

| refusal | in doubt |
|---|---|
| that says that a quota is used up for long | yes, and its ticket ends |
| of a request from before the closure | no: the closure has its reason |
| of the recovery probe, without a hint or before the end of the previous one | no: it came too early |
| of a known limit, with a hint of at most 2 s, and of the first eight of its ticket | no: it costs little |
| of or beside an unconfirmed limit probe | no: the probe explains it |
| the second of its ticket, or the third without hints | yes |
| with a hint that is much longer than the proven period | yes |
| any other | no |

For ten minutes after an own refusal, more of them are *expected*. This does not hold if the quota varies: then a
request that is refused beside others only has more pages. While own refusals are expected, no recovery probe comes
too early, a limit probe explains only its own refusal, and the last row is "yes".
"""

from dataclasses import dataclass
from typing import Final

from nanonets_proxy.core.ratelimit.adaptive.limit import Limit, LimitState
from nanonets_proxy.core.ratelimit.long_quota import FIRST_DISTANCE_S
from nanonets_proxy.core.ratelimit.tickets import Ticket

SHORT_S: Final = 2.0
"""A closure this short costs little."""

_MAX_CHEAP: Final = 8  # refusals of one ticket: early tries refuse a lone ticket up to eight times
_MIN_HELD_S: Final = 1.0
_MAX_HELD_S: Final = 3600.0
_ODD_HINT: Final = 1.5  # times the period: a longer hint seems to be of another limit


@dataclass(frozen=True, slots=True)
class DoubtfulRefusal:
    """A refusal of a ticket, before the limit learns from it."""

    ticket: Ticket
    limit: Limit
    hint_s: float | None
    quota_used_up: bool
    """Whether it says that a quota is used up for long."""
    expects_own: bool
    """Whether own refusals are expected."""

    @property
    def is_in_doubt(self) -> bool:
        """Whether the refusal may concern only its ticket."""
        if self.quota_used_up:
            return True
        if self._belongs_to_closure or self._is_cheap or self._is_explained:
            return False
        return self.expects_own or self._is_repeated or self._hint_is_odd

    @property
    def _belongs_to_closure(self) -> bool:
        limit = self.limit
        if limit.state is LimitState.PROBING and not self.expects_own:
            return self.hint_s is None or self.ticket.granted_at_s < limit.timer.hinted_end_s
        return limit.state is LimitState.CLOSED

    @property
    def _is_cheap(self) -> bool:
        # A limit may also have room again before a substitute comes.
        is_short = self.hint_s is not None and self.hint_s <= SHORT_S
        return is_short and self.limit.estimate.known and self.ticket.refusals <= _MAX_CHEAP

    @property
    def _is_explained(self) -> bool:
        grants = self.limit.grants
        if self.expects_own:
            return grants.is_unconfirmed_probe(self.ticket.serial)
        return grants.has_unconfirmed_probe

    @property
    def _is_repeated(self) -> bool:
        # Without a hint, the limit itself often refuses a ticket twice.
        return self.ticket.refusals > (2 if self.hint_s is None else 1)

    @property
    def _hint_is_odd(self) -> bool:
        estimate = self.limit.estimate
        is_longer = self.hint_s is not None and self.hint_s > _ODD_HINT * estimate.window.period_s
        return is_longer and estimate.proven > 0

    @property
    def held_s(self) -> float:
        """How long the ticket is held: as long as the hint says, and twice as long after each doubt."""
        min_held_s = FIRST_DISTANCE_S if self.quota_used_up and not self.hint_s else _MIN_HELD_S
        held_s = max(min_held_s, self.hint_s or 0.0) * 2.0 ** min(self.ticket.doubts, 8)
        return held_s if self.quota_used_up else min(held_s, _MAX_HELD_S)
