"""The gate's news, for the log and the alarms: closures, used-up and shrunken quotas, changes of the estimate."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from nanonets_proxy.core.ratelimit.adaptive.estimate.belief import Belief
from nanonets_proxy.core.ratelimit.quota_watch import QuotaFinding


@dataclass(frozen=True, slots=True)
class LimitClosed:
    """The closure of a scope is over."""

    scope: str
    refused: int
    """The number of 429s that closed the scope or came while it was closed."""
    lasted_s: float
    retry_after_s: float | None
    """The longest hint; None: there was none."""
    quota_used_up: bool
    """Whether a quota was used up for long."""


@dataclass(frozen=True, slots=True)
class QuotaUsedUp:
    """A quota is used up for longer than any request may wait. `LimitClosed` follows when it is over."""

    scope: str
    retry_after_s: float | None
    """The longest hint; None: there was none."""
    probe_in_s: float
    """When a request may test the quota."""


@dataclass(frozen=True, slots=True)
class LimitLearned:
    """The estimate of a limit has changed."""

    scope: str
    before: Belief
    after: Belief


@dataclass(frozen=True, slots=True)
class QuotaChanged:
    """The upstream accepts clearly less of a scope's quota than before."""

    scope: str
    finding: QuotaFinding


News = LimitClosed | LimitLearned | QuotaChanged | QuotaUsedUp


class NewsQueue:
    """The news that the shell has not taken yet: the latest 1,000."""

    __slots__ = ("_news", "is_empty")

    def __init__(self) -> None:
        self._news: deque[News] = deque(maxlen=1000)
        self.is_empty = True

    def add(self, news: Iterable[News]) -> None:
        """Adds news, in order."""
        self._news.extend(news)
        self.is_empty = False

    def take(self) -> list[News]:
        """Returns the news since the last call, in order."""
        news = list(self._news)
        self._news.clear()
        self.is_empty = True
        return news
