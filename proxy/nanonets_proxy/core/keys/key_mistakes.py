"""Recognizes text that is no key, and text that was taken for one by mistake, such as a placeholder.

`run` imports this module before its command starts, so the expressions are compiled where they are used.
"""

import re
from base64 import b64decode
from typing import Final

MAX_KEY_CHARS: Final = 4096
NOT_SHOWN: Final = "(not shown)"
_USUAL_KEY_CHARS: Final = 20
# The secrets of Standard Webhooks, Vault's tokens and callers' tokens. Base64 may have a slash in it.
_SECRET_START: Final = r"(?:^|\.)(?:whsec_|hvs\.|nnp_).{8}"  # noqa: S105 - a pattern
# Between hyphens, a name such as invoice-worker-prod-01 or backup-2026-11-30 has words and short numbers. A UUID, a
# hexadecimal key, and 99 of 100 in URL-safe Base64 also have a longer part with a digit.
_RANDOM_CHARS: Final = 8
_OWN_NAMES: Final = "nanonets_"

_EMPTY_VALUES: Final = frozenset({"none", "null", "nil", "undefined", "nan", "true", "false", "n/a"})
_ASSIGNMENT: Final = r"(?:export\s+)?[A-Za-z_][A-Za-z0-9_]*=[^=]"
# Complete words only: a random key may contain the letters of any of them.
_PLACEHOLDER: Final = (
    r"(?:^|[-_.])(?:your|my|insert|enter|replace|paste|put|change|add)[-_.]?"
    r"(?:me|this|here|in|it|with|own|nanonets|real|actual|new|api|secret|key|token)+(?:$|[-_.])"
    r"|(?:^|[-_.])(?:api[-_.]?key|secret|token)[-_.]?here(?:$|[-_.])"
    r"|^(?:nanonets[-_.]?)?(?:api[-_.]?key|key|token|secret|password|todo|fixme|tbd|placeholder|example|dummy|changeme)$"
    r"|(?:^|[-_.])placeholder(?:$|[-_.])"
    r"|^[x*.…-]{3,}$"
)
_TEMPLATES: Final = (("<", ">"), ("${", "}"), ("{{", "}}"), ("{", "}"), ("[", "]"), ("%", "%"), ("$(", ")"))


def fault_of(key: str) -> str | None:
    """Returns why `key` cannot be a key, as the end of a sentence; None if it can. Never quotes it."""
    if not key:
        return "is empty"
    if len(key) > MAX_KEY_CHARS:
        return f"is longer than {MAX_KEY_CHARS} characters"
    if any(char.isspace() for char in key):
        return "has white space in it"
    if not key.isascii():
        return "has characters that are not ASCII"
    if not key.isprintable():
        return "has control characters in it"
    if ":" in key:
        # RFC 7617 §2: the first colon ends the user name, and the key is the user name.
        return "has a colon in it"
    return None


def mistake_of(key: str) -> str | None:
    """Returns what `key` looks like instead of a key, as the end of a sentence. Never quotes it."""
    if key[0] in "\"'`" or key[-1] in "\"'`":
        return "has a quotation mark around it: remove the quotation marks"
    if re.match(_ASSIGNMENT, key):
        return "looks like NAME=key: keep only the text behind the equals sign"
    if key.lower() in _EMPTY_VALUES:
        return "looks like an empty value that a program wrote as a word"
    if key.startswith(("/", "./", "../", "~/")):
        return "looks like the path of a file: use NANONETS_API_KEY_FILE for a path"
    if key.startswith("$") or any(key.startswith(begin) and key.endswith(end) for begin, end in _TEMPLATES):
        return "looks like a variable that was not replaced by its value"
    if re.search(_PLACEHOLDER, key, re.IGNORECASE):
        return "looks like the placeholder of an example"
    if _is_encoded(key):
        return "looks like the Base64 form of a key, as in an Authorization field: give the key itself"
    return None


def may_be_key(text: str) -> bool:
    """Returns whether a text that was given as a path or a name may be a key or another secret instead."""
    if re.search(_SECRET_START, text):
        return True
    end = text.rpartition(".")[2]  # an extension is shorter
    if len(end) < _USUAL_KEY_CHARS or "/" in text:
        return False
    return any(len(part) >= _RANDOM_CHARS and any(map(str.isdigit, part)) for part in re.split("[-_]", end))


def without_keys(sentence: str) -> str:
    """Returns an error's sentence without the words that may be keys. The program's own names stay."""

    def shown(found: re.Match[str]) -> str:
        word = found[0]
        is_own_name = word.lower().startswith(_OWN_NAMES)
        return NOT_SHOWN if may_be_key(word.rstrip(".")) and not is_own_name else word

    return re.sub(r"[^\s:=@,;'\"()\[\]]{5,}", shown, sentence)


def _is_encoded(key: str) -> bool:
    """Returns whether the text is `key:` in Base64 (RFC 7617 §2)."""
    try:
        text = b64decode(key, validate=True)
    except ValueError:
        return False
    return len(text) > 1 and text.endswith(b":") and text.isascii() and text[:-1].decode("ascii").isprintable()
