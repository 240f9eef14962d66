"""The latest responses with an ETag, kept so that the upstream need not send them again while they stay the same.

A response is in one of these states:

    ARRIVING   its request is with the upstream (`begin`)
      a write to its path or below begins or ends  -> ENDED, it cannot be kept
      it arrives, and is kept (`keep`)             -> KEPT
      it arrives and cannot be kept, or it fails   -> ENDED
    KEPT       requests for it ask the upstream whether it is still the same
      the upstream says so (`update`)              -> KEPT, with the fields of that response
      another response to its request is kept      -> ENDED, the other one is KEPT
      a write to its path or below begins or ends  -> ENDED
      the upstream sends another status (`drop`)   -> ENDED
      the room is needed, for the least recently used response first -> ENDED
      the key changes (`use_key`)                  -> ENDED
    ENDED      it is not used for another request

A kept response is never the answer by itself: the upstream has to confirm it, with the key of the new request. So a
write by another client cannot make it wrong.
"""

from collections.abc import Hashable
from typing import Final, Generic, TypeVar

from nanonets_proxy.core.coalescing.writes import Segments, changed_paths, may_change, segments_of

MOST_KEPT_BYTES: Final = 16 * 1024 * 1024
"""The memory of all kept responses of an environment."""

_OVERHEAD_BYTES: Final = 2048
"""What the objects of a kept response with a dozen fields take beside their bytes, as tracemalloc shows."""

R = TypeVar("R")


class Arriving:
    """A response whose request is with the upstream."""

    __slots__ = ("is_outdated", "segments")

    def __init__(self, segments: Segments | None) -> None:
        self.segments = segments
        self.is_outdated = segments is None
        """Whether a write may have changed what the response says."""


class _Kept(Generic[R]):
    __slots__ = ("response", "segments", "size_bytes")

    def __init__(self, response: R, size_bytes: int, segments: Segments) -> None:
        self.response = response
        self.size_bytes = size_bytes
        self.segments = segments


class KeptResponses(Generic[R]):
    """The kept responses of an environment. `identity` is all that makes two requests identical."""

    def __init__(self, most_bytes: int = MOST_KEPT_BYTES) -> None:
        self._most_bytes = most_bytes
        self._key: object = None
        self._kept: dict[Hashable, _Kept[R]] = {}  # the least recently used first
        self._by_path: dict[Segments, dict[Hashable, None]] = {}
        self._arriving: dict[Arriving, None] = {}
        self.bytes = 0

    def find(self, identity: Hashable) -> R | None:
        """Returns the kept response to identical requests."""
        kept = self._kept.pop(identity, None)
        if kept is None:
            return None
        self._kept[identity] = kept
        return kept.response

    def begin(self, target: str) -> Arriving:
        """Notes that a request is being sent; `end` must follow."""
        arriving = Arriving(segments_of(target))
        self._arriving[arriving] = None
        return arriving

    def end(self, arriving: Arriving) -> None:
        self._arriving.pop(arriving, None)

    def keep(self, identity: Hashable, arriving: Arriving, response: R, size_bytes: int) -> None:
        """Keeps a response, unless a write has outdated it. Makes room for it."""
        self.drop(identity)
        if arriving.segments is not None and not arriving.is_outdated:
            self._put(identity, _Kept(response, size_bytes + _OVERHEAD_BYTES, arriving.segments))

    def update(self, identity: Hashable, old: R, new: R, size_bytes: int) -> None:
        """Replaces `old` by `new`, which has other fields, if `old` is still kept."""
        kept = self._kept.get(identity)
        if kept is not None and kept.response is old:
            self.drop(identity)
            self._put(identity, _Kept(new, size_bytes + _OVERHEAD_BYTES, kept.segments))

    def _put(self, identity: Hashable, kept: _Kept[R]) -> None:
        self._kept[identity] = kept
        self._by_path.setdefault(kept.segments, {})[identity] = None
        self.bytes += kept.size_bytes
        while self.bytes > self._most_bytes:
            self.drop(next(iter(self._kept)))

    def drop(self, identity: Hashable) -> None:
        kept = self._kept.pop(identity, None)
        if kept is not None:
            self.bytes -= kept.size_bytes
            identities = self._by_path[kept.segments]
            del identities[identity]
            if not identities:
                del self._by_path[kept.segments]

    def note_write(self, method: str, target: str) -> None:
        """Notes that a write begins or ends."""
        written = segments_of(target)
        for arriving in self._arriving:
            arriving.is_outdated |= may_change(method, written, arriving.segments)
        for path in changed_paths(method, written, self._by_path):
            for identity in list(self._by_path[path]):
                self.drop(identity)

    def use_key(self, key: object) -> None:
        """Notes the API key of the next request. Forgets responses to another key, perhaps of another account."""
        if key is self._key:
            return
        if key != self._key:
            for arriving in self._arriving:
                arriving.is_outdated = True
            self._kept.clear()
            self._by_path.clear()
            self.bytes = 0
        self._key = key
