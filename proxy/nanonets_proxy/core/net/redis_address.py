"""The URL of a Redis or Valkey server: one server, a master that Sentinels name, or a cluster."""

import enum
import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

_FORMS: Final = (
    "must be of the form redis[s]://[USER:PASSWORD@]HOST[:PORT][/DATABASE], "
    "redis[s]+sentinel://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]…]/SERVICE[/DATABASE] or "
    "redis[s]+cluster://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]…]"
)
_UNESCAPED: Final = (
    "has a user or password with a character that must be escaped: write / as %2F, ? as %3F, # as %23"
)
_END_OF_AUTHORITY: Final = re.compile("[/?#]")  # RFC 3986 §3.2
_FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")


class RedisKind(enum.Enum):
    """What the hosts of the URL are. The value is the end of the URL's scheme, and the usual port."""

    SERVER = ("", 6379)
    SENTINEL = ("+sentinel", 26379)
    CLUSTER = ("+cluster", 6379)


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where the server is. `repr` and `str` mask its password."""

    hosts: tuple[tuple[str, int], ...]
    """Names and ports: one server, or some of the Sentinels or of the cluster's nodes."""
    kind: RedisKind = RedisKind.SERVER
    tls: bool = False
    user: str = ""
    password: str = field(default="", repr=False)
    service: str = ""
    """The name of the master at its Sentinels."""
    database: int = 0
    ca_file: str = ""
    """PEM files for TLS, named as in redis-py: of authorities besides those of the system, and of the client."""
    cert_file: str = ""
    key_file: str = ""

    @classmethod
    def parse(cls, text: str) -> "RedisAddress":
        """Parses a URL of one of the `_FORMS`, with the `_FILES` as query after `rediss`.

        Raises:
            ValueError: the text is not such a URL; the message never shows the text.
        """
        # urlsplit takes only one host: releases since 2025 reject brackets behind another one.
        start, separator, rest = text.partition("://")
        authority = _END_OF_AUTHORITY.split(rest, maxsplit=1)[0]
        if "@" not in authority and "@" in rest.partition("?ssl_")[0]:
            raise ValueError(_UNESCAPED)
        parts = urlsplit(f"{start}{separator}{rest[len(authority) :]}")
        scheme, plus, end = parts.scheme.partition("+")
        kind = next((kind for kind in RedisKind if kind.value[0] == plus + end), None)
        if scheme not in {"redis", "rediss"} or kind is None or not separator or parts.fragment:
            raise ValueError(_FORMS)
        login, _, hosts = authority.rpartition("@")
        user, _, password = login.partition(":")
        found = _hosts(hosts, kind)
        service, database = _path(parts.path, kind)
        files = _files(parts.query, is_tls=scheme == "rediss")
        return cls(
            hosts=found,
            kind=kind,
            tls=scheme == "rediss",
            user=unquote(user),
            password=unquote(password),
            service=service,
            database=database,
            ca_file=files.get("ssl_ca_certs", ""),
            cert_file=files.get("ssl_certfile", ""),
            key_file=files.get("ssl_keyfile", ""),
        )

    def __str__(self) -> str:
        user = "***@" if self.user or self.password else ""
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        service = f"/{self.service}" if self.service else ""
        database = "" if self.kind is RedisKind.CLUSTER else f"/{self.database}"
        return f"redis{'s' if self.tls else ''}{self.kind.value[0]}://{user}{hosts}{service}{database}"

    def secrets(self) -> tuple[bytes, ...]:
        """Returns the byte strings that must never appear in the log."""
        return (self.password.encode(),) if self.password else ()


def _hosts(text: str, kind: RedisKind) -> tuple[tuple[str, int], ...]:
    hosts = []
    for each in text.split(","):
        try:
            parts = urlsplit(f"//{each}")
            host, port = parts.hostname, parts.port
        except ValueError:
            raise ValueError(_FORMS) from None
        if not host or parts.path or parts.query or port == 0:
            raise ValueError(_FORMS)
        hosts.append((host, port or kind.value[1]))
    if len(hosts) > 1 and kind is RedisKind.SERVER:
        raise ValueError("names several hosts: write redis+sentinel:// or redis+cluster://")
    return tuple(hosts)


def _path(path: str, kind: RedisKind) -> tuple[str, int]:
    """Returns the service and the database."""
    service, database = "", path.strip("/")
    if kind is RedisKind.SENTINEL:
        service, _, database = database.partition("/")
        if not service:
            raise ValueError("must name the service of the Sentinels, as in redis+sentinel://HOST/SERVICE")
    if database and not (database.isdecimal() and database.isascii() and len(database) <= 5):
        raise ValueError("must end with the number of a database, such as /0")
    if kind is RedisKind.CLUSTER and database.strip("0"):
        raise ValueError("a cluster has only the database 0")
    return unquote(service), int(database or 0)


def _files(query: str, *, is_tls: bool) -> dict[str, str]:
    files = dict(parse_qsl(query, keep_blank_values=True))
    if not files.keys() <= set(_FILES):
        raise ValueError(f"may only have the parameters {', '.join(_FILES)}")
    if files and not is_tls:
        raise ValueError(f"{next(iter(files))} needs TLS: write rediss://")
    if "ssl_keyfile" in files and "ssl_certfile" not in files:
        raise ValueError("ssl_keyfile needs ssl_certfile")
    if not all(files.values()):
        raise ValueError("has an empty file name")
    return files
