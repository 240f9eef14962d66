"""The API key as a value that cannot be printed."""

from base64 import b64encode
from hashlib import blake2b
from hmac import compare_digest
from typing import Any, NoReturn, final
from urllib.parse import quote

from nanonets_proxy.core.keys.audience import Audience, AuthScheme
from nanonets_proxy.core.keys.key_mistakes import fault_of, mistake_of
from nanonets_proxy.core.net.addresses import Origin

# Not a secret: with it, fingerprints of this program are comparable with each other but not with other hashes.
_FINGERPRINT_KEY = b"nanonets-proxy fingerprint"
_FINGERPRINT_BYTES = 4


class KeyUnusable(Exception):
    """A configured key cannot be used. The message names its source and the fault, never the value."""

    def __init__(self, source: str, fault: str) -> None:
        super().__init__(f"the API key of {source} {fault}")
        self.fault = fault


class KeyMisdirected(Exception):
    """A defect: a key was about to be sent to an upstream that it is not for. The message never has the key."""


@final
class ApiKey:
    """A Nanonets API key. It is bound to one audience, and can be sent to no other.

    Every format shows `ApiKey(***)`. It cannot be pickled, copied or changed. Two are equal if they hold the
    same key, even from different sources.
    """

    __slots__ = ("_audience", "_key", "name")

    _key: bytes
    _audience: Audience | None
    name: str
    """The name of its source for logs, such as `env:NANONETS_API_KEY`."""

    def __init__(self, key: bytes, name: str, audience: Audience | None = None) -> None:
        object.__setattr__(self, "_key", key)
        object.__setattr__(self, "_audience", audience)
        object.__setattr__(self, "name", name)

    @classmethod
    def parse(cls, text: str, source: str) -> "ApiKey":
        """Parses the content of `source`, ignoring white space around the key.

        Raises:
            KeyUnusable: the key is empty, longer than `MAX_KEY_CHARS`, or contains a colon, white space or any
                character that is not printable ASCII.
        """
        key = text.strip()
        if (fault := fault_of(key)) is not None:
            raise KeyUnusable(source, fault)
        return cls(key.encode("ascii"), source)

    def bound_to(self, audience: Audience) -> "ApiKey":
        """Returns the key for this audience.

        Raises:
            KeyUnusable: the key is bound to another audience, or cannot be sent to this one.
        """
        if self._audience not in (None, audience):
            raise KeyUnusable(self.name, "is the key of another upstream")
        if (fault := audience.fault_of(self._key)) is not None:
            raise KeyUnusable(self.name, fault)
        return ApiKey(self._key, self.name, audience)

    @property
    def audience(self) -> Audience | None:
        """The audience that the key is bound to; None: it can be sent nowhere yet."""
        return self._audience

    def authorization(self, origin: Origin) -> bytes:
        """Returns the value of the Authorization field for a request to `origin` (RFC 7617 §2, RFC 6750 §2.1).

        Raises:
            KeyMisdirected: the key is not bound to this origin.
        """
        audience = self._audience
        if audience is None or audience.origin != origin:
            raise KeyMisdirected(f"the API key of {self.name} is not for {origin}")
        if audience.scheme is AuthScheme.BEARER:
            return b"Bearer " + self._key
        return b"Basic " + b64encode(self._key + b":")

    def mistake(self) -> str | None:
        """Returns what the key looks like if it can hardly be a key, without quoting it; None otherwise."""
        return mistake_of(self._key.decode("ascii"))

    def fingerprint(self) -> str:
        """Returns 8 hex digits that identify the key in every process, but do not reveal it."""
        return blake2b(self._key, key=_FINGERPRINT_KEY, digest_size=_FINGERPRINT_BYTES).hexdigest()

    def secrets(self) -> tuple[bytes, ...]:
        """Returns every form in which the key may appear in a text, longest first.

        The Base64 forms have no padding, so that they match with and without it.
        """
        forms = {
            self._key,
            quote(self._key, safe="").encode("ascii"),
            self._key.rstrip(b"="),  # the padding of a bearer token may be missing in an echo
            b64encode(self._key + b":").rstrip(b"="),
            b64encode(self._key).rstrip(b"="),
        }
        return tuple(sorted(forms, key=lambda form: (-len(form), form)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ApiKey) and compare_digest(self._key, other._key)

    # A hash would be another fingerprint of the key, and nothing needs it.
    __hash__ = None  # type: ignore[assignment]  # the documented way to make a type unhashable

    def __repr__(self) -> str:
        return "ApiKey(***)"

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def __setattr__(self, attribute: str, value: Any) -> NoReturn:
        raise AttributeError("an ApiKey is constant")

    def __delattr__(self, attribute: str) -> NoReturn:
        raise AttributeError("an ApiKey is constant")

    def __reduce__(self) -> NoReturn:
        raise TypeError("an ApiKey cannot be pickled or copied")

    def __getstate__(self) -> NoReturn:
        raise TypeError("an ApiKey cannot be pickled or copied")
