"""The default listeners: `localhost`, so 127.0.0.1 and ::1, and only 127.0.0.1 on a machine without IPv6."""

import errno
import os
import re
import socket
from pathlib import Path

import pytest

from support.commands.ports import has_ipv6
from support.commands.process import environment, running

LOCALHOST = ("--listen", "localhost:0", "--admin-listen", "localhost:0")


def _get(family: int, address: str, target: str) -> bytes:
    """Connects to localhost's address of one family only, as BusyBox wget and node 18 do with ::1."""
    port = int(address.rpartition(":")[2])
    with socket.socket(family) as caller:
        caller.settimeout(60)
        caller.connect(("127.0.0.1" if family == socket.AF_INET else "::1", port))
        caller.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: caller.recv(65536), b""))


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_a_client_that_resolves_localhost_to_one_family_only_reaches_both_listeners() -> None:
    with running(["serve", "--sandbox", *LOCALHOST], environment(), is_forked=True) as proxy:
        started = proxy.wait_for("started")
        for setting, target in (("listen", "/api/v4/workflows"), ("admin_listen", "/livez")):
            first, second = started[setting]
            assert re.fullmatch(r"127\.0\.0\.1:[0-9]+", first)
            assert second == f"[::1]:{first.rpartition(':')[2]}", "port 0 gives both addresses the same port"
            for family in (socket.AF_INET, socket.AF_INET6):
                assert _get(family, first, target).startswith(b"HTTP/1.1 200 OK\r\n")
        assert proxy.end() == 0


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_the_sandbox_alone_serves_both_addresses() -> None:
    with running(["sandbox", "--listen", "localhost:0"], environment(), is_forked=True) as sandbox:
        first, second = sandbox.wait_for("sandbox_started")["listen"]
        assert second == f"[::1]:{first.rpartition(':')[2]}"
        assert _get(socket.AF_INET6, second, "/").startswith(b"HTTP/1.1 200 OK\r\n")


# --- machines without IPv6 -------------------------------------------------------------------------

# `socket` of such a kernel (socket(2), bind(2)), for a process that starts with this file as its sitecustomize.
_WITHOUT_IPV6 = {
    errno.EADDRNOTAVAIL: """
import os, socket
class _Socket(socket.socket):
    def bind(self, address):
        if address[0] == "::1":
            raise OSError({number}, os.strerror({number}))
        super().bind(address)
socket.socket = _Socket
""",
    errno.EAFNOSUPPORT: """
import os, socket
class _Socket(socket.socket):
    def __init__(self, family=-1, *arguments, **named):
        if family == socket.AF_INET6:
            raise OSError({number}, os.strerror({number}))
        super().__init__(family, *arguments, **named)
socket.socket = _Socket
""",
}


@pytest.fixture(params=_WITHOUT_IPV6, ids=lambda number: errno.errorcode[number])
def without_ipv6(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """Returns the environment for a process whose kernel refuses IPv6 with one of the two errors."""
    code = _WITHOUT_IPV6[request.param].format(number=int(request.param))
    (tmp_path / "sitecustomize.py").write_text(code)
    return environment(PYTHONPATH=os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")])))


def test_without_ipv6_localhost_is_silently_127_0_0_1(without_ipv6: dict[str, str]) -> None:
    with running(["serve", "--sandbox", *LOCALHOST], without_ipv6) as proxy:
        started = proxy.wait_for("started")
        for setting, target in (("listen", "/api/v4/workflows"), ("admin_listen", "/livez")):
            (address,) = started[setting]
            assert _get(socket.AF_INET, address, target).startswith(b"HTTP/1.1 200 OK\r\n")
        assert proxy.end() == 0
    assert {event["level"] for event in proxy.all_events()} == {"info"}
    assert b"::1" not in proxy.stderr


@pytest.mark.parametrize(
    ("without_ipv6", "setting"),
    [(errno.EADDRNOTAVAIL, "listen"), (errno.EAFNOSUPPORT, "admin-listen")],
    indirect=["without_ipv6"],
)
def test_without_ipv6_an_ipv6_address_that_the_user_names_is_an_error(
    without_ipv6: dict[str, str], setting: str
) -> None:
    with running(["serve", "--sandbox", *LOCALHOST, f"--{setting}", "[::1]:0"], without_ipv6) as proxy:
        assert proxy.wait() == 2
    (line,) = bytes(proxy.stderr).decode().splitlines()
    assert line.startswith(f"nanonets-proxy: {setting.replace('-', '_')}: [::1]:0 ")
    assert line.endswith(
        (
            f"is not an address of this machine (flag --{setting})",
            f"has an address family that this machine does not support (flag --{setting})",
        )
    )
