"""Tells whether the container may end with this process, so that no new process could take its place."""

from pathlib import Path
from typing import Final

_FIRST_PROCESS: Final = 1
# They end with the program that they run: `docker run --init`, `podman run --init`, and images with an own one.
_INITS: Final = frozenset({"catatonit", "docker-init", "dumb-init", "podman-init", "tini", "tini-static"})
_SHELLS: Final = frozenset({"ash", "bash", "busybox", "dash", "sh"})


def ends_container(pid: int, proc: Path = Path("/proc")) -> bool:
    """Returns whether the end of a process may be that of its container, as far as `proc` tells (proc(5)).

    It is if the process is the first one of the container, or all processes above it only wait for its end. A
    service manager such as systemd is neither an init of a container nor a shell. A process that `docker exec` has
    started counts too: it looks the same as the first one of a container that shares its numbers with others.
    """
    while pid > _FIRST_PROCESS:
        try:
            _, _, after_name = (proc / str(pid) / "stat").read_text(errors="replace").rpartition(")")
            pid = int(after_name.split()[1])
            # 0: the parent is outside, as for the first process of a container that shares the numbers of others.
            if pid and (proc / str(pid) / "comm").read_text(errors="replace").strip() not in _INITS | _SHELLS:
                return False
        except OSError:  # not Linux
            return False
    return True
