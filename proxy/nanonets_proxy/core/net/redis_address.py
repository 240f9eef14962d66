"""The address of a Redis or Valkey server."""

from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, urlsplit

_SCHEMES: Final = ("redis", "rediss")
_FORM: Final = "must be of the form redis[s]://[USER:PASSWORD@]HOST[:PORT][/DATABASE]"


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """A Redis or Valkey server. `repr` and `str` mask its password."""

    host: str
    port: int
    tls: bool = False
    user: str = ""
    password: str = field(default="", repr=False)
    database: int = 0

    @classmethod
    def parse(cls, text: str) -> "RedisAddress":
        """Parses `redis[s]://[USER[:PASSWORD]@]HOST[:PORT][/DATABASE]`.

        Raises:
            ValueError: the text is not such a URL; the message never shows the text.
        """
        try:
            parts = urlsplit(text)
            port = parts.port or 6379
        except ValueError:
            raise ValueError(_FORM) from None
        if parts.scheme not in _SCHEMES or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(_FORM)
        database = parts.path.strip("/")
        if database and not (database.isdecimal() and database.isascii() and len(database) <= 5):
            raise ValueError("must end with the number of a database, such as /0")
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        return cls(parts.hostname, port, parts.scheme == "rediss", user, password, int(database or 0))

    def __str__(self) -> str:
        user = "***@" if self.user or self.password else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"redis{'s' if self.tls else ''}://{user}{host}:{self.port}/{self.database}"

    def secrets(self) -> tuple[bytes, ...]:
        """Returns the byte strings that must never appear in the log."""
        return (self.password.encode(),) if self.password else ()
