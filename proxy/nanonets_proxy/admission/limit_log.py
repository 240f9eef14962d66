"""The log events of the gate: one for each closure of a scope, and one for each change of an estimate."""

import math
from collections.abc import Callable

import structlog

from nanonets_proxy.core.ratelimit.news import LimitClosed, News, QuotaChanged, QuotaUsedUp


def limit_log(
    log: structlog.stdlib.BoundLogger, on_quota: Callable[[QuotaChanged | QuotaUsedUp], None]
) -> Callable[[News], None]:
    """Returns the function that logs the gate's news. News of a quota go to `on_quota`: they are alarms."""

    def write(news: News) -> None:
        if isinstance(news, LimitClosed):
            log.info(
                "limit_closed",
                scope=news.scope,
                refused=news.refused,
                lasted_s=round(news.lasted_s, 3),
                retry_after_s=news.retry_after_s,
                quota_used_up=news.quota_used_up,
            )
            return
        if isinstance(news, QuotaChanged | QuotaUsedUp):
            on_quota(news)
            return
        before, after = news.before, news.after
        log.info(
            "limit_learned",
            scope=news.scope,
            count_from=_known(before.count),
            count_to=_known(after.count),
            period_from_s=_known(before.period_s),
            period_to_s=_known(after.period_s),
            concurrency_from=_known(before.concurrency_limit),
            concurrency_to=_known(after.concurrency_limit),
        )

    return write


def _known(value: float) -> float | None:
    return None if value == math.inf else round(value, 3)
