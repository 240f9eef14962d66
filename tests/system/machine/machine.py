"""A machine for the pages of docs/deployment: a network of its own, `docker`, and an upstream.

The network is a namespace with its own ports and firewall rules: the pages' ports are free, and containers' bridges
change nothing outside. slirp4netns connects the namespace to the outside, where packages come from.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trustme

from support.commands.page_commands import ROOT, Reader
from system.podman import STATE, certificates, environment, wait_for

ADDRESS: Final = "10.0.2.100"
"""The machine's own address, as slirp4netns sets it."""

UPSTREAM_HOST: Final = "app.nanonets.com"


@dataclass(frozen=True, slots=True)
class Machine:
    """`within` is a command that runs another one on the machine."""

    within: tuple[str, ...]
    env: dict[str, str]
    home: Path

    def reader(self) -> Reader:
        """Returns a reader in a clone of the repository."""
        folder = self.home / "nanonets-proxy"
        reader = Reader(folder, self.env, self.within)
        reader.clone()
        return reader

    def succeed(self, *command: str, timeout_s: float = 120.0) -> str:
        """Returns the standard output of a command that must exit with 0."""
        done = subprocess.run(
            [*self.within, *command], env=self.env, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    @contextlib.contextmanager
    def upstream(self, *api_keys: str) -> Iterator[None]:
        """Runs the simulated API as https://app.nanonets.com. It accepts these keys."""
        program = [*self.within, sys.executable, "-m"]
        env = environment() | {"NANONETS_SANDBOX_API_KEYS": ",".join(api_keys), "PYTHONPATH": str(ROOT / "tests")}
        with contextlib.ExitStack() as processes:
            for arguments in (
                ["nanonets_proxy", "sandbox", "--listen=127.0.0.1:8090"],
                ["system.machine.tls_relay", ADDRESS, str(self.home / "upstream.pem"), "8090"],
            ):
                process = subprocess.Popen(
                    [*program, *arguments], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
                )
                processes.enter_context(process)
                processes.callback(process.terminate)
            wait_for("the simulated API", self._upstream_responds, within_s=60)
            yield

    def _upstream_responds(self) -> bool:
        command = [
            "curl",
            "--silent",
            "--cacert",
            str(self.home / "ca.pem"),
            f"https://{UPSTREAM_HOST}/sandbox/stats",
        ]
        return subprocess.run([*self.within, *command], capture_output=True, check=False).returncode == 0


@contextlib.contextmanager
def machine(home: Path) -> Iterator[Machine]:
    """Starts a machine whose user's home is `home`."""
    env = environment() | {
        "HOME": str(home),
        "PATH": f"{home}/.local/bin:{environment()['PATH']}",
        "BUILD_CA": next(iter(certificates()), ""),
        "NANONETS_PROXY_UPSTREAM_PRIVATE": "true",
        "SSL_CERT_FILE": str(home / "ca.pem"),
        "PIP_CACHE_DIR": os.environ.get("PIP_CACHE_DIR", str(Path.home() / ".cache" / "pip")),
        "CONTAINERS_CONF": str(_container_settings(home)),
    }
    _make_certificates(home)
    (home / "hosts").write_text(f"127.0.0.1 localhost\n::1 localhost\n{ADDRESS} {UPSTREAM_HOST}\n")
    with _network(home / "hosts") as within:
        own = Machine(within, env, home)
        others = own.succeed("podman", "ps", "--all", "--quiet").split()
        try:
            yield own
        finally:
            if left := set(own.succeed("podman", "ps", "--all", "--quiet").split()) - set(others):
                own.succeed("podman", "rm", "--force", "--time=0", *left)
            own.succeed("podman", "volume", "prune", "--force")


def _make_certificates(home: Path) -> None:
    """Makes the upstream's certificate, and a file of the authorities that the machine trusts."""
    authority = trustme.CA()
    authority.issue_cert(UPSTREAM_HOST).private_key_and_cert_chain_pem.write_to_path(home / "upstream.pem")
    authority.cert_pem.write_to_path(home / "ca.pem")


def _container_settings(home: Path) -> Path:
    """Writes podman's settings: containers trust the upstream of the tests."""
    networks = home / "networks"
    networks.mkdir()
    text = (STATE / "containers.conf").read_text()
    ours = (
        'env = ["NANONETS_PROXY_UPSTREAM_PRIVATE=true", "SSL_CERT_FILE=/upstream-ca.pem"]\n'
        f'volumes = ["{home}/ca.pem:/upstream-ca.pem:ro"]\n'
    )
    text = text.replace("[containers]\n", f"[containers]\n{ours}")
    path = home / "containers.conf"
    path.write_text(f'{text}[network]\nnetwork_backend = "netavark"\nnetwork_config_dir = "{networks}"\n')
    return path


@contextlib.contextmanager
def _network(hosts: Path) -> Iterator[tuple[str, ...]]:
    """Makes a network namespace that reaches the outside, but not this machine's loopback.

    `hosts` becomes its /etc/hosts.
    """
    with contextlib.ExitStack() as processes:
        unshare = ["unshare", "--net", "--mount", "--propagation=private", "--kill-child", "--fork"]
        begin = f"mount --bind {hosts} /etc/hosts && ip link set lo up && echo up && exec sleep infinity"
        holder = _run(processes, *unshare, "sh", "-c", begin)
        assert holder.stdout is not None
        assert holder.stdout.readline() == "up\n"
        pid = int(Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text())
        within = ("nsenter", f"--target={pid}", "--net", "--mount", "--")
        _run(processes, "slirp4netns", "--configure", "--mtu=65520", "--disable-host-loopback", str(pid), "tap0")
        wait_for("the network", lambda: ADDRESS in _output(*within, "ip", "address"))
        yield within


def _run(processes: contextlib.ExitStack, *command: str) -> "subprocess.Popen[str]":
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    processes.enter_context(process)
    processes.callback(process.kill)  # `unshare` ignores SIGTERM
    return process


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
