"""What a request needs of the keys; `keys/key_manager.py` implements it."""

from typing import Protocol

from nanonets_proxy.core.keys.key_records import KeyHistory, KeyUse, KeyVerdict, Ruling


class KeyProvider(Protocol):
    """The keys of one environment."""

    def has_usable_key(self) -> bool:
        """Returns whether requests can be sent; if not, they must be held."""

    def reason_of_401(self) -> str:
        """Returns what a 401 of the upstream concerns, for operators and callers."""

    async def wait_for_key(self, history: KeyHistory, now_s: float, deadline_s: float) -> float:
        """Waits until the request can be sent, or until `deadline_s`. Returns the loop's time then."""

    def choose_fast(self) -> KeyUse | None:
        """Returns the key for a request without a rejection; None: call `choose`."""

    def choose(self, history: KeyHistory, deadline_s: float) -> KeyUse | None:
        """Returns the key for any request. Before `deadline_s` it may return None: then hold the request first."""

    def accept_fast(self, use: KeyUse) -> bool:
        """Ends a use whose key was accepted. Returns False if `settle` must decide."""

    def settle(self, use: KeyUse, verdict: KeyVerdict, history: KeyHistory | None) -> Ruling:
        """Ends a use, notes a rejection of the key in `history`, and returns what happens to the request."""

    async def wait_for_ruling(self, use: KeyUse, history: KeyHistory, deadline_s: float) -> Ruling:
        """Waits until a ruling to WAIT becomes RELAY or SEND_AGAIN, or until `deadline_s`."""
