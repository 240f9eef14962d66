"""Reads the key from the output of a command, as git and Kubernetes do with credential helpers."""

import contextlib
import fnmatch
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from nanonets_proxy.core.keys.api_key import ApiKey, KeyUnusable
from nanonets_proxy.core.keys.key_mistakes import NOT_SHOWN, may_be_key
from nanonets_proxy.core.keys.key_records import FoundKey

if TYPE_CHECKING:
    from nanonets_proxy.keys.change_watch import ChangeWatch

MAX_OUTPUT_BYTES: Final = 64 * 1024
_CHUNK_BYTES: Final = 16 * 1024

COMMON_VARIABLES: Final = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_*", "TZ", "TMPDIR", "XDG_*"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "CREDENTIALS_DIRECTORY", "GNUPGHOME", "PASSWORD_STORE_DIR"),
)
"""The variables that every command gets: none of them holds a secret."""


def environment_of_command(patterns: Iterable[str], environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Returns the variables of `environ` that a command gets: the common ones, and those that `patterns` name.

    A `*` in a pattern stands for any characters.
    """
    wanted = (*COMMON_VARIABLES, *patterns)
    return tuple(
        (name, value)
        for name, value in environ.items()
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in wanted)
    )


def shown_program(program: str) -> str:
    """Returns a program's name or path for messages. A key is sometimes given in place of the command."""
    return NOT_SHOWN if may_be_key(program) and shutil.which(program) is None else program


@dataclass(frozen=True, slots=True)
class CommandKey:
    """Runs `command` without a shell, in its own process group. Kills the group if the reading fails.

    The command gets only the variables `environ`: this process's own hold other secrets. Standard error is
    discarded: a program with tracing turned on would print the key there.
    """

    command: tuple[str, ...]
    refresh_s: float
    timeout_s: float
    environ: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @property
    def name(self) -> str:
        """The name for logs, without the arguments, which may hold secrets."""
        return f"command:{Path(shown_program(self.command[0])).name}"

    def watch(self) -> "ChangeWatch":
        from nanonets_proxy.keys.change_watch import PeriodicWatch  # imported here: as in `FileKey.watch`

        return PeriodicWatch(lambda: self.refresh_s)

    def read(self) -> tuple[FoundKey, ...]:
        """Runs the command; blocks for up to `timeout_s`.

        Raises:
            KeyUnusable: the command cannot be run, fails, takes too long or prints too much, or its output is not
                a key.
        """
        try:
            process = subprocess.Popen(  # noqa: S603 - the operator chose the program, and no shell reads it
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=dict(self.environ),
                start_new_session=True,
            )
        except OSError as error:
            is_shown = shown_program(self.command[0]) != NOT_SHOWN
            hint = "" if is_shown else "; the value of api_key_command may be the key itself"
            fault = (error.strerror or "unknown fault").lower()
            raise self._unusable(f"the command cannot be run: {fault}{hint}") from None
        try:
            output = self._output_of(process)
        except BaseException:
            _kill(process)
            raise
        return (FoundKey(ApiKey.parse(output.decode("latin-1"), self.name), time.time()),)

    def _output_of(self, process: "subprocess.Popen[bytes]") -> bytes:
        """Reads standard output to its end, then checks the exit code."""
        assert process.stdout is not None
        deadline_s = time.monotonic() + self.timeout_s
        output = b""
        poll = select.poll()  # `select.select` takes no descriptor above 1023, and callers may have those below
        with process.stdout as stdout:
            poll.register(stdout, select.POLLIN)
            while True:
                remaining_s = deadline_s - time.monotonic()
                if remaining_s <= 0 or not poll.poll(remaining_s * 1000):
                    raise self._too_slow()
                chunk = os.read(stdout.fileno(), _CHUNK_BYTES)
                if not chunk:
                    break
                output += chunk
                if len(output) > MAX_OUTPUT_BYTES:
                    raise self._unusable(f"the command printed more than {MAX_OUTPUT_BYTES // 1024} KiB")
        try:
            code = process.wait(max(0.0, deadline_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise self._too_slow() from None
        if code:
            end = f"exited with code {code}" if code > 0 else f"was ended by signal {-code}"
            raise self._unusable(f"the command {end}; run it by hand to see why")
        return output

    def _too_slow(self) -> KeyUnusable:
        return self._unusable(f"the command took longer than {self.timeout_s:g} s")

    def _unusable(self, fault: str) -> KeyUnusable:
        return KeyUnusable(self.name, f"is unavailable: {fault}")


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """Kills the program and every process in its group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
