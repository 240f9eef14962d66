"""Recognises header fields and query parameters that make some servers use another method or path.

Frameworks spell these names in many ways, and servers behind CGI read `.` and `_` like `-`. So a name is judged by
its words, whatever separates them. It overrides if it has a *subject*, such as `method`, and otherwise only
*qualifiers*, such as `x`, `http` or `original`.
"""

import re
import unicodedata
from functools import lru_cache
from typing import Final
from urllib.parse import unquote

_METHOD: Final = r"(?:method|verb)"
_PATH: Final = r"(?:path|pathinfo|uri|url|scriptname|scripturl)"
_QUALIFIER: Final = (
    "(?:accel|arr|base|destination|effective|envoy|final|forward(?:ed)?|http|internal|ms|orig(?:inal)?|overrid(?:e|den)|"
    "prox(?:y|ied)|raw|real|replaced|request(?:ed)?|rewrit(?:e|ten)|rewrote|target|tunnel(?:ed)?|unencoded|waf|waws|x)"
)
# Names are judged without their separators, so that `X-HttpMethodOverride` counts too.
_FIELD: Final = re.compile(f"{_QUALIFIER}*(?:{_METHOD}|{_PATH}){_QUALIFIER}*")
# A plain `method` or `url` is a usual parameter.
_PARAMETER: Final = re.compile(f"(?=x|.*(?:http|overrid)){_QUALIFIER}*{_METHOD}{_QUALIFIER}*")
_SEPARATORS: Final = re.compile(r"[^a-z0-9]+")
_MOST_DECODINGS: Final = 3
_MOST_CACHED_BYTES: Final = 64  # of a name
_MOST_PARAMETER_CHARS: Final = 512


def is_overriding_field(name: bytes) -> bool:
    """Returns whether a field makes some servers use another method or path. `name`: in lower case."""
    # Most requests have the same names.
    return _is_overriding(name) if len(name) <= _MOST_CACHED_BYTES else _is_overriding.__wrapped__(name)


@lru_cache(maxsize=1024)
def _is_overriding(name: bytes) -> bool:
    return _FIELD.fullmatch(_SEPARATORS.sub("", name.decode("latin-1"))) is not None


def has_overriding_parameter(target: str) -> bool:
    """Returns whether the query has a parameter that makes some servers use another method or path.

    A name beyond _MOST_PARAMETER_CHARS counts as one, since some servers drop white space at its beginning.
    """
    query = target.partition("?")[2]
    if not query:
        return False
    # Each once: a target has room for thousands.
    names = {pair.partition("=")[0] for pair in query.replace(";", "&").split("&")}
    return any(len(name) > _MOST_PARAMETER_CHARS or _is_overriding_parameter(name) for name in names)


def _is_overriding_parameter(name: str) -> bool:
    for _ in range(_MOST_DECODINGS):
        decoded = unquote(name)
        if decoded == name:
            break
        name = decoded
    name = unicodedata.normalize("NFKC", name).lower().partition("[")[0]
    letters = _SEPARATORS.sub("", name)
    # A separator at the beginning marks a parameter for the framework itself: `_method`, `.method`, `_url`.
    is_marked = bool(_SEPARATORS.match(name))
    return (_FIELD if is_marked else _PARAMETER).fullmatch(letters) is not None
