"""The kinds of grants: why a request may go now, and so what its outcome teaches."""

import enum


class GrantKind(enum.Enum):
    """Why a request may go now."""

    PROVEN = "proven"
    """The proven part of the limit has room."""
    UNPROVEN = "unproven"
    """The limit has room, but only in its unproven part."""
    PERIOD_START = "period_start"
    """The first request of a period whose length is not confirmed yet."""
    RECOVERY_PROBE = "recovery_probe"
    """The single request that tests a closed scope."""
    COUNT_PROBE = "count_probe"
    """Tests whether the window admits one more request."""
    PERIOD_PROBE = "period_probe"
    """Tests whether the period is shorter than estimated."""
    CONCURRENCY_PROBE = "concurrency_probe"
    """Tests whether the upstream accepts one more request in flight."""


LIMIT_PROBES = frozenset({GrantKind.COUNT_PROBE, GrantKind.PERIOD_PROBE, GrantKind.CONCURRENCY_PROBE})
"""The grants that test whether the limit is higher than estimated."""
