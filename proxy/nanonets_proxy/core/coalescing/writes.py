"""Which writes may change what a GET of a path returns.

A write to a path, or to one below it, may. A DELETE, PUT or PATCH above the path may too, since it may change what
is below. A POST above the path only adds something beside it (RFC 9110 §9.3.3).
"""

from collections.abc import Collection

from nanonets_proxy.core.access.access_rules import read_path

Segments = tuple[str, ...]


def segments_of(target: str) -> Segments | None:
    """Returns the segments of a target's path in lower case; None if servers could read the path differently."""
    segments = read_path(target)
    return None if segments is None else tuple(segment.casefold() for segment in segments)


def changed_paths(method: str, written: Segments | None, read: Collection[Segments]) -> list[Segments]:
    """Returns those of the paths whose responses a write may change, as `may_change` says.

    For a POST, which is by far the most frequent write, it looks only at the path and those above it.
    """
    if written is None:
        return list(read)
    above = [written[:count] for count in range(len(written) + 1)]
    found = [path for path in above if path in read]
    if method != "POST":
        found += [path for path in read if len(path) > len(written) and path[: len(written)] == written]
    return found


def may_change(method: str, written: Segments | None, read: Segments | None) -> bool:
    """Returns whether a write to one path may change what a GET of another returns."""
    if written is None or read is None:
        return True
    if written[: len(read)] == read:
        return True
    return method != "POST" and read[: len(written)] == written
