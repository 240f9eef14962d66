"""What a request wants of the keys; `keys/keeper.py` has it."""

from typing import Protocol

from nanonets_proxy.core.key_records import KeyTries, KeyVerdict, Use
from nanonets_proxy.upstream.body import RequestBody


class Keys(Protocol):
    async def hold(self, tries: KeyTries, now_s: float, deadline_s: float) -> float: ...

    def choose(self, tries: KeyTries, deadline_s: float) -> Use | None:
        """None, which is told before `deadline_s` only: hold it first."""

    def settle(self, use: Use, verdict: KeyVerdict, tries: KeyTries) -> bool: ...


def tries_for(body: RequestBody | None) -> KeyTries:
    """A large upload tries no unproven key: it would have to go twice."""
    return KeyTries(may_try=body is None or body.is_small)
