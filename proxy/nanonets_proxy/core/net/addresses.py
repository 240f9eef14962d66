"""Addresses to listen on and to connect to, parsed from the settings."""

import re
from base64 import b64encode
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TypeAlias
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit

from nanonets_proxy.core.net.address_ranges import is_loopback_address

# RFC 952 and RFC 1123 §2.1, with the underscore that container engines allow in names.
_HOST_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
                        r"(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*", re.ASCII)  # fmt: skip
_UNIX_OPTIONS = re.compile(
    r"(?:mode=(?P<mode>0?[0-7]{3}))?&?(?:owner=(?P<owner>[A-Za-z0-9_.-]+)?(?::(?P<group>[A-Za-z0-9_.-]+))?)?",
    re.ASCII,
)
# sockaddr_un holds 108 bytes with the final null (man 7 unix); macOS and BSD hold 104.
_MAX_UNIX_PATH_BYTES = 103
DEFAULT_UNIX_MODE = 0o660

LISTEN_FORMS = "write localhost:8080, 127.0.0.1:8080, [::1]:8080, :8080 for all interfaces, or unix:/path?mode=0660"


def is_host_name(host: str) -> bool:
    """Returns whether `host` is a DNS name. Dotted numbers are not: they are addresses or mistakes."""
    return _HOST_NAME.fullmatch(host) is not None and not host.rpartition(".")[2].isdigit()


def is_ip_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Returns whether `host` is a loopback address or `localhost` (RFC 6761 §6.3)."""
    return host == "localhost" or (is_ip_address(host) and is_loopback_address(host))


# A listener on these is on every interface, hence also on loopback.
_LOOPBACK_OF_ALL_INTERFACES = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound

# The names of listeners that stand for an IPv4 and an IPv6 address. The resolver is not asked: RFC 6761 §6.3 lets
# programs know that localhost is loopback, and an image may have no /etc/hosts.
_ADDRESS_PAIRS = {"localhost": ("127.0.0.1", "::1"), "": ("0.0.0.0", "::")}  # noqa: S104 - the user asks for them


def is_every_interface(host: str) -> bool:
    """Returns whether a listener on `host`, with or without brackets, is on every interface."""
    return host.strip("[]") in _LOOPBACK_OF_ALL_INTERFACES


def reachable_host(host: str) -> str:
    """Returns the address at which this machine reaches a listener on `host`: loopback for every interface."""
    return "127.0.0.1" if host == "localhost" else _LOOPBACK_OF_ALL_INTERFACES.get(host, host)


def bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


@dataclass(frozen=True, slots=True)
class TcpListener:
    """A TCP address to listen on. An empty `host` means every interface, and port 0 any free port.

    `localhost` means 127.0.0.1 and ::1. Like every interface, it includes IPv6 only if the machine has IPv6.
    """

    host: str
    port: int

    @property
    def is_local(self) -> bool:
        """Whether only this machine can connect."""
        return is_loopback(self.host)

    @property
    def address_pair(self) -> "tuple[TcpListener, ...]":
        """The IPv4 and the IPv6 address that `localhost` or every interface stands for. Empty for other hosts."""
        return tuple(TcpListener(address, self.port) for address in _ADDRESS_PAIRS.get(self.host, ()))

    def __str__(self) -> str:
        return f"{bracketed(self.host)}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixListener:
    """A unix socket to listen on.

    `mode`: the file's permissions. `owner`, `group`: names or numbers; if None, those of the process.
    """

    path: str
    mode: int = DEFAULT_UNIX_MODE
    owner: str | None = None
    group: str | None = None

    @property
    def is_local(self) -> bool:
        return True

    def __str__(self) -> str:
        group = "" if self.group is None else f":{self.group}"
        owner = f"&owner={self.owner or ''}{group}" if self.owner or group else ""
        return f"unix:{self.path}?mode={self.mode:04o}{owner}"


Listener: TypeAlias = TcpListener | UnixListener


def _port(text: str, *, lowest: int) -> int | None:
    if not re.fullmatch(r"[0-9]{1,5}", text, re.ASCII) or not lowest <= int(text) <= 65535:
        return None
    return int(text)


def parse_listener(text: str) -> Listener:
    """Parses a listening address.

    Raises:
        ValueError: the text is not a listening address; the message says why.
    """
    if text.startswith("unix:"):
        return _parse_unix(text)
    host, colon, port_text = text.rpartition(":")
    if not colon:
        raise ValueError(f"{text!r} has no port: {LISTEN_FORMS}")
    port = _port(port_text, lowest=0)
    if port is None:
        raise ValueError(f"{text!r} has no port from 0 to 65535 after the last colon: {LISTEN_FORMS}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if ":" not in host or not is_ip_address(host):
            raise ValueError(f"{text!r} has no IPv6 address in its brackets: {LISTEN_FORMS}")
    elif ":" in host:
        raise ValueError(f"{text!r} needs brackets around its IPv6 address: {LISTEN_FORMS}")
    elif host and not is_ip_address(host) and not is_host_name(host):
        raise ValueError(f"{text!r} has no address or host name before the port: {LISTEN_FORMS}")
    return TcpListener(host.lower(), port)


def _parse_unix(text: str) -> UnixListener:
    name, question, options = text.removeprefix("unix:").partition("?")
    if not name.startswith("/"):
        raise ValueError(f"{text!r} needs an absolute path: write unix:/path?mode=0660")
    if len(name.encode()) > _MAX_UNIX_PATH_BYTES:
        raise ValueError(f"{text!r} is too long: a socket's path has at most {_MAX_UNIX_PATH_BYTES} bytes")
    match = _UNIX_OPTIONS.fullmatch(options)
    if match is None or (question and not any(match.groups())):
        raise ValueError(
            f"{text!r} has an option that is neither mode=0660 nor owner=user:group: "
            "write unix:/path?mode=0660&owner=app:team"
        )
    mode = int(match["mode"], 8) if match["mode"] else DEFAULT_UNIX_MODE
    return UnixListener(name, mode, match["owner"], match["group"])


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port of the upstream. `host` is in lower case and has no brackets."""

    scheme: str
    host: str
    port: int

    @property
    def tls(self) -> bool:
        return self.scheme == "https"

    @property
    def authority(self) -> str:
        """The value of Host: without the port if that is the scheme's default (RFC 9110 §4.2)."""
        default_port = 443 if self.tls else 80
        return bracketed(self.host) if self.port == default_port else f"{bracketed(self.host)}:{self.port}"

    @property
    def authorities(self) -> frozenset[str]:
        """The spellings of the authority, with and without the port, in lower case."""
        return frozenset({self.authority, f"{bracketed(self.host)}:{self.port}"})

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


def _split_url(text: str, default_ports: dict[str, int]) -> tuple[SplitResult, str, int]:
    """Returns a URL's parts, host and port. Raises ValueError, whose message never shows the text."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("is not a URL: its host or port is malformed") from None
    schemes = " or ".join(f"{scheme}://" for scheme in default_ports)
    if parts.scheme not in default_ports or not text.lower().startswith(f"{parts.scheme}://"):
        raise ValueError(f"must start with {schemes}")
    if not host or not (is_ip_address(host) or is_host_name(host)):
        raise ValueError("has no valid host name or address")
    if port == 0:
        raise ValueError("has the port 0, to which nothing can connect")
    if parts.path not in ("", "/") or "?" in text or "#" in text:
        raise ValueError("must end after the host and port: no path, query or fragment")
    return parts, host, port or default_ports[parts.scheme]


def parse_origin(text: str) -> Origin:
    """Parses the upstream's URL. Plain HTTP is allowed to loopback only, because the key is sent in clear text.

    Raises:
        ValueError: the text is not such a URL; the message says why and never shows the text.
    """
    parts, host, port = _split_url(text, {"https": 443, "http": 80})
    if "@" in parts.netloc:
        raise ValueError("must not have a user name: the key has its own settings, such as NANONETS_API_KEY")
    if parts.scheme == "http" and not is_loopback(host):
        raise ValueError(
            "must be https: plain http would show the key to the network, and is allowed to loopback only"
        )
    return Origin(parts.scheme, host, port)


def parse_collector(text: str) -> Origin:
    """Parses the URL of a collector of traces, which get no secret: plain HTTP is allowed to any host.

    Raises:
        ValueError: as `parse_origin`.
    """
    parts, host, port = _split_url(text, {"https": 443, "http": 80})
    if "@" in parts.netloc:
        raise ValueError("must not have a user name")
    return Origin(parts.scheme, host, port)


@dataclass(frozen=True, slots=True)
class EgressProxy:
    """An HTTP proxy that leads to the upstream by CONNECT. `repr` and `str` mask its user and password."""

    host: str
    port: int
    userinfo: bytes | None = field(default=None, repr=False)
    """`user:password`, percent-decoded."""

    def authorization(self) -> bytes | None:
        """Returns the value of Proxy-Authorization (RFC 7617 §2), or None without a user."""
        return None if self.userinfo is None else b"Basic " + b64encode(self.userinfo)

    def secrets(self) -> tuple[bytes, ...]:
        """Returns the byte strings that must never appear in the log."""
        if self.userinfo is None:
            return ()
        password = self.userinfo.partition(b":")[2]
        return tuple(form for form in (b64encode(self.userinfo).rstrip(b"="), password) if form)

    def __str__(self) -> str:
        user = "" if self.userinfo is None else "***@"
        return f"http://{user}{bracketed(self.host)}:{self.port}"


def parse_egress_proxy(text: str) -> EgressProxy:
    """Parses the URL of an egress proxy.

    Raises:
        ValueError: the text is not such a URL; the message says why and never shows the text.
    """
    parts, host, port = _split_url(text, {"http": 80})
    userinfo, at, _ = parts.netloc.rpartition("@")
    if not at:
        return EgressProxy(host, port)
    user, _, password = userinfo.partition(":")
    return EgressProxy(host, port, unquote_to_bytes(user) + b":" + unquote_to_bytes(password))
