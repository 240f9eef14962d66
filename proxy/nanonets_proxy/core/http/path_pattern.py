"""Path patterns of settings, such as `/api/v4/workflows/{workflow}/documents/{document}`, as regular expressions.

`{name}` matches one segment that is not empty. `/**` at the end matches any further segments, or none. A slash at
the end of the request's path is ignored, and so is its query. Paths are compared by RFC 3986 §6.2.2.2: an escaped
unreserved character equals that character (`%4CabelFile` is `LabelFile`), while `%2F` separates no segments.
"""

import re
from collections.abc import Callable, Iterable

from nanonets_proxy.core.http.target import decode_unreserved

PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


def path_expression(pattern: str) -> tuple[str, tuple[str, ...]]:
    """Returns the expression for the start of a target, and the names of its groups.

    Raises ValueError with a sentence that names the fault.
    """
    if not pattern.startswith("/") or "?" in pattern or "#" in pattern:
        raise ValueError(f"{pattern!r} is not a path: it must start with / and have no query")
    head, open_end = (pattern[:-3], True) if pattern.endswith("/**") else (pattern.removesuffix("/"), False)
    names: list[str] = []
    expression = ""
    for segment in head.split("/")[1:]:
        if placeholder := PLACEHOLDER.fullmatch(segment):
            names.append(placeholder[1])
            expression += "/([^/?]+)"
        elif not segment or set("{}*") & set(segment):
            raise ValueError(f"segment {segment!r} of {pattern!r} must be text, {{name}}, or a final **")
        else:
            expression += "/" + re.escape(decode_unreserved(segment))
    if len(set(names)) != len(names):
        raise ValueError(f"{pattern!r} uses a name twice")
    return expression + (r"(?:[/?]|\Z)" if open_end else r"/?(?:\?|\Z)"), tuple(names)


def check_path_pattern(pattern: str) -> str:
    """Returns the pattern. Raises ValueError as `path_expression` does."""
    path_expression(pattern)
    return pattern


def any_path(patterns: Iterable[str]) -> Callable[[str], object]:
    """Returns a function that says whether a target matches one of these valid patterns.

    It compares the target as sent, so an escaped character matches only a placeholder.
    """
    return re.compile("|".join(path_expression(pattern)[0] for pattern in patterns) or "(?!)").match
