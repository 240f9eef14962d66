"""Who a caller is: names, and the tokens that prove them.

A token is 256 random bits, so its plain SHA-256 is no way back to it, and a slow hash would only slow each
request down. What is kept is a line `NAME sha256:HEX`; several lines may have one name, so that a token can be
replaced without a gap.
"""

import binascii
import re
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from typing import Final, Self

TOKEN_BYTES: Final = 32
# Lets a scanner of repositories know one when it sees it.
_PREFIX: Final = "nnp_"
# A letter first: no name looks like an address, nor, without a colon, like the peer of a unix socket.
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}", re.ASCII)
_LINE: Final = re.compile(r"(?P<name>\S+)\s+sha256:(?P<digest>[0-9a-fA-F]{64})", re.ASCII)
_SCHEME: Final = re.compile(rb"(bearer|basic) +([!-~]+) *", re.IGNORECASE)


def check_caller_name(name: str) -> str:
    """The name as it is. ValueError: it is none."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no caller's name: up to 64 letters, digits and . _ -, a letter first")
    return name


def make_token(randomness: bytes) -> str:
    """A token of `TOKEN_BYTES` random bytes, for its caller alone."""
    if len(randomness) != TOKEN_BYTES:
        raise ValueError(f"a token is made of {TOKEN_BYTES} bytes")
    return _PREFIX + urlsafe_b64encode(randomness).rstrip(b"=").decode()


@dataclass(frozen=True, slots=True)
class CallerToken:
    """One caller's name, and the SHA-256 of one of its tokens."""

    name: str
    digest: bytes

    @classmethod
    def of(cls, name: str, token: str) -> Self:
        return cls(check_caller_name(name), sha256(token.encode()).digest())

    @classmethod
    def parse(cls, line: str) -> Self:
        """Reads `NAME sha256:HEX`. The message of a ValueError never shows the line: it may hold a token."""
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise ValueError("is not NAME sha256:HEX, as `nanonets-proxy token NAME` writes it")
        return cls(check_caller_name(match["name"]), bytes.fromhex(match["digest"]))

    def __str__(self) -> str:
        return f"{self.name} sha256:{self.digest.hex()}"


def parse_token_lines(text: str) -> tuple[CallerToken, ...]:
    """Reads a file of such lines; empty lines and those that start with # are left out.

    Raises:
        ValueError: a line is none, or there is no line at all; the message is the end of a sentence that starts
            with the name of the file.
    """
    tokens = []
    for number, line in enumerate(text.splitlines(), start=1):
        if (stripped := line.strip()) and not stripped.startswith("#"):
            try:
                tokens.append(CallerToken.parse(stripped))
            except ValueError as error:
                raise ValueError(f"cannot be used: line {number}: {error}") from None
    if not tokens:
        raise ValueError("holds no token: nobody could call")
    return tuple(tokens)


class CallersByToken:
    """Finds the caller of a token."""

    __slots__ = ("_names",)

    def __init__(self, tokens: Iterable[CallerToken]) -> None:
        self._names: dict[bytes, tuple[bytes, str]] = {}
        for token in tokens:
            known = self._names.setdefault(token.digest, (token.digest, token.name))
            if known[1] != token.name:
                raise ValueError(f"{known[1]} and {token.name} have the same token")

    def caller_of(self, token: bytes) -> str | None:
        """The caller's name. The time that it takes tells nothing: a digest is looked up by a hash that is keyed
        anew in each process, and what is found is compared in constant time."""
        digest = sha256(token).digest()
        found = self._names.get(digest)
        return found[1] if found is not None and compare_digest(found[0], digest) else None


def token_from_authorization(credentials: bytes) -> bytes | None:
    """The token in the value of an Authorization field: that of Bearer (RFC 6750 §2.1), or the user name of
    Basic (RFC 7617 §2), which is where the clients of the API put their key."""
    match = _SCHEME.fullmatch(credentials)
    if match is None:
        return None
    scheme, value = match.groups()
    if scheme.lower() == b"bearer":
        return value
    try:
        return b64decode(value, validate=True).partition(b":")[0]
    except binascii.Error:
        return None
