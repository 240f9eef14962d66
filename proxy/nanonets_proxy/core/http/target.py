"""The request target: its form for the upstream, for comparison, and for the log."""

import re

from nanonets_proxy.errors import BadRequest

# RFC 9112 §3.2.2. The authority is only compared; the proxy never connects to it. RFC 9110 §4.2.4: an http URL has
# no user information.
_ABSOLUTE = re.compile(r"https?://([^/?#@]+)((?:[/?#].*)?)", re.IGNORECASE | re.DOTALL)
_LOGGED_CHARACTERS = 512
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")  # RFC 3986 §2.3
_USUAL_NAME = re.compile(r"[A-Za-z0-9_.\[\]-]{1,32}", re.ASCII)


def origin_form(method: str, target: str, authorities: frozenset[str]) -> tuple[str, str | None]:
    """Returns the target in origin-form (or `*`), and the authority of an absolute-form target.

    `authorities` (lower case) are the upstream's own; for these the returned authority is None. Any other authority
    must be checked like a Host.

    Raises:
        BadRequest: the target has another form (RFC 9112 §3.2). A target never chooses the upstream.
    """
    if target.startswith("/") or (target == "*" and method == "OPTIONS"):
        return target, None
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        raise BadRequest("The request target must be a path, or a URL of this proxy.")
    authority, path = match.groups()
    if not path:
        path = "*" if method == "OPTIONS" else "/"  # RFC 9112 §3.2.4
    elif not path.startswith("/"):
        path = "/" + path
    return path, None if authority.lower() in authorities else authority


def decode_unreserved(path: str) -> str:
    """Returns the path with each escaped unreserved character replaced by that character (RFC 3986 §6.2.2.2)."""
    return _ESCAPE.sub(_decode_one, path)


def _decode_one(escape: re.Match[str]) -> str:
    char = chr(int(escape[1], 16))
    return char if char in _UNRESERVED else escape[0]


def loggable_target(target: str) -> str:
    """Returns the target for the log: cut to 512 characters, with the names of the query but not the values.

    A parameter without `=`, or with an unusual name, may itself be a secret: it becomes an ellipsis.
    """
    if "?" in target:
        path, _, query = target.partition("?")
        names = map(_loggable_name, query[: 2 * _LOGGED_CHARACTERS].split("&"))
        target = path + "?" + "&".join(names)
    return target if len(target) <= _LOGGED_CHARACTERS else target[:_LOGGED_CHARACTERS] + "…"


def _loggable_name(pair: str) -> str:
    name, has_value, _ = pair.partition("=")
    return name if not pair or (has_value and _USUAL_NAME.fullmatch(name)) else "…"
