"""The names of callers, and the tokens that prove them.

A token is 256 random bits, so its plain SHA-256 cannot be reversed, and a slow hash would only slow down each
request. Settings and files keep the hash, as `NAME sha256:HEX`. Several of these may have the same name, so that a
token can be replaced without interruption.
"""

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from typing import Final, Self

from nanonets_proxy.core.access.token_text import PREFIX

# The Base64 of Basic credentials starts like the Base64 of the prefix.
_BEGINNINGS: Final = (PREFIX.encode(), b64encode(PREFIX.encode())[:5])
_IN_TEXT: Final = re.compile(rb"%b[A-Za-z0-9_-]{43}|%b[A-Za-z0-9+/_-]{55,}" % _BEGINNINGS)
# The first letter keeps a name from looking like an IP address; without a colon it cannot look like a unix peer.
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}", re.ASCII)
_LINE: Final = re.compile(r"(?P<name>\S+)\s+sha256:(?P<digest>[0-9a-fA-F]{64})", re.ASCII)
_CREDENTIALS: Final = re.compile(rb" *(?:([!-~]+) +)?([!-~]+) *")


def check_caller_name(name: str) -> str:
    """Returns the name. Raises ValueError if it is not a caller's name."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is not a caller's name: use up to 64 letters, digits and . _ -, and start with a letter"
        )
    return name


def mask_tokens(text: bytes, mask: bytes | Callable[[re.Match[bytes]], bytes]) -> bytes:
    """Replaces each token that `make_token` made, plain or in Basic credentials. `mask`: as for `re.sub`."""
    # Nearly no text has a token, and the search for the beginnings takes a seventh of the expression's time.
    plain, encoded = _BEGINNINGS
    return _IN_TEXT.sub(mask, text) if plain in text or encoded in text else text


@dataclass(frozen=True, slots=True)
class CallerToken:
    """A caller's name and the SHA-256 of one of its tokens."""

    name: str
    digest: bytes

    @classmethod
    def of(cls, name: str, token: str) -> Self:
        return cls(check_caller_name(name), sha256(token.encode()).digest())

    @classmethod
    def parse(cls, line: str) -> Self:
        """Parses `NAME sha256:HEX`. Raises ValueError; its message never shows the line, which may hold a token."""
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise ValueError("the entry is not NAME sha256:HEX, as `nanonets-proxy token NAME` writes it")
        return cls(check_caller_name(match["name"]), bytes.fromhex(match["digest"]))

    def __str__(self) -> str:
        return f"{self.name} sha256:{self.digest.hex()}"


def parse_token_lines(text: str) -> tuple[CallerToken, ...]:
    """Parses the content of a file of caller tokens. Empty lines and lines that start with # are ignored.

    Raises:
        ValueError: a line is malformed, or the file holds no token. The message is the end of a sentence that
            starts with the file's name.
    """
    tokens = []
    for number, line in enumerate(text.splitlines(), start=1):
        if (stripped := line.strip()) and not stripped.startswith("#"):
            try:
                tokens.append(CallerToken.parse(stripped))
            except ValueError as error:
                raise ValueError(f"cannot be used: line {number}: {error}") from None
    if not tokens:
        raise ValueError("holds no token, so no caller could be let in")
    return tuple(tokens)


class CallersByToken:
    """Finds the caller that a token belongs to."""

    __slots__ = ("_names",)

    def __init__(self, tokens: Iterable[CallerToken]) -> None:
        self._names: dict[bytes, tuple[bytes, str]] = {}
        for token in tokens:
            known = self._names.setdefault(token.digest, (token.digest, token.name))
            if known[1] != token.name:
                raise ValueError(f"{known[1]} and {token.name} have the same token")

    def caller_of_any(self, tokens: Iterable[bytes]) -> str | None:
        """Returns the name of the first caller that one of `tokens` belongs to, or None."""
        return next(filter(None, map(self.caller_of, tokens)), None)

    def caller_of(self, token: bytes) -> str | None:
        """Returns the caller's name, or None. The time taken reveals nothing about the tokens.

        The digest is looked up by a hash with a random key per process, and compared in constant time.
        """
        digest = sha256(token).digest()
        found = self._names.get(digest)
        return found[1] if found is not None and compare_digest(found[0], digest) else None


def tokens_in_authorization(credentials: bytes) -> tuple[bytes, ...]:
    """Returns the texts of an Authorization field's value that may be a token, in the order to try them.

    Clients put their key, and so their token, where their API wants it: as the user name of Basic, which Nanonets
    documents; as its password (RFC 7617 §2); as Bearer (RFC 6750 §2.1); behind another scheme; or without a scheme.
    """
    match = _CREDENTIALS.fullmatch(credentials)
    if match is None:
        return ()
    scheme, value = match.groups()
    if scheme is None or scheme.lower() != b"basic":
        return (value,)
    try:
        user, _, password = b64decode(value, validate=True).partition(b":")
    except binascii.Error:
        return ()
    return tuple(filter(None, (user, password)))
