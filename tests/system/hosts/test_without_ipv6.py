"""The default listeners in a network whose kernel has no IPv6."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from support.commands.process import Running, environment, running

pytestmark = pytest.mark.system


@contextmanager
def _in_a_network_without_ipv6(*arguments: str) -> Iterator[Running]:
    """Runs the command in a network namespace of its own, whose kernel has IPv6 switched off."""
    namespace = f"nanonets-test-{os.getpid()}"
    inside = ["ip", "netns", "exec", namespace]
    subprocess.run(["ip", "netns", "add", namespace], check=True)
    try:
        subprocess.run([*inside, "ip", "link", "set", "lo", "up"], check=True)
        off = "for family in /proc/sys/net/ipv6/conf/*; do echo 1 > $family/disable_ipv6; done"
        subprocess.run([*inside, "sh", "-c", off], check=True)
        with running(arguments, environment(), within=inside) as command:
            yield command
    finally:
        subprocess.run(["ip", "netns", "delete", namespace], check=True)


def test_the_defaults_work_where_the_kernel_has_no_ipv6() -> None:
    with _in_a_network_without_ipv6("serve", "--sandbox") as proxy:
        started = proxy.wait_for("started")
        assert (started["listen"], started["admin_listen"]) == (["127.0.0.1:8080"], ["127.0.0.1:8081"])
        assert proxy.end() == 0
