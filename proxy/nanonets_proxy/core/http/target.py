"""The request target: what of it goes upstream, and what of it may be logged."""

import re

from nanonets_proxy.errors import BadRequest

# RFC 9112 §3.2.2; the authority is compared, never connected to.
_ABSOLUTE = re.compile(r"https?://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)
_LOGGED_CHARACTERS = 512


def origin_form(method: str, target: str, authorities: frozenset[str]) -> tuple[str, str | None]:
    """The target in origin-form (or `*`), and the authority that an absolute-form named.

    `authorities` (lower case) are the upstream's own, which need no further check; for any other the
    caller of this function judges the returned authority like a Host. Raises BadRequest for every
    other form (RFC 9112 §3.2): such a target never chooses the upstream.
    """
    if target.startswith("/") or (target == "*" and method == "OPTIONS"):
        return target, None
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        raise BadRequest("The request target must be a path, or a URL of this proxy.")
    authority, rest = match.groups()
    if not rest:
        rest = "*" if method == "OPTIONS" else "/"  # RFC 9112 §3.2.4
    elif not rest.startswith("/"):
        rest = "/" + rest
    return rest, None if authority.lower() in authorities else authority


def loggable_target(target: str) -> str:
    """The target for the log: bounded, query names kept, their values dropped."""
    if "?" in target:
        path, _, query = target.partition("?")
        names = [pair.partition("=")[0] for pair in query[: 2 * _LOGGED_CHARACTERS].split("&")]
        target = path + "?" + "&".join(names)
    return target if len(target) <= _LOGGED_CHARACTERS else target[:_LOGGED_CHARACTERS] + "…"
