"""The key as a program prints it, the way git and Kubernetes ask their credential helpers."""

import contextlib
import os
import select
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nanonets_proxy.core.keys.api_key import ApiKey, KeyUnusable
from nanonets_proxy.core.keys.key_records import FoundKey
from nanonets_proxy.keys.change_watch import ChangeWatch, PeriodicWatch

MAX_OUTPUT_BYTES: Final = 64 * 1024
_PIECE_BYTES: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class CommandKey:
    """`command` is run without a shell, in a process group of its own that is killed if it fails.

    What it prints to standard error is thrown away: a program that traces itself would show the key there.
    """

    command: tuple[str, ...]
    refresh_s: float
    timeout_s: float

    @property
    def name(self) -> str:
        """Without the arguments: they may hold secrets."""
        return f"command:{Path(self.command[0]).name}"

    def watch(self) -> ChangeWatch:
        return PeriodicWatch(lambda: self.refresh_s)

    def read(self) -> tuple[FoundKey, ...]:
        """Runs the command; blocks for up to `timeout_s`.

        Raises:
            KeyUnusable: it cannot be run, fails, takes too long, prints too much or what is no key.
        """
        try:
            process = subprocess.Popen(  # noqa: S603 - the operator chose the program, and no shell reads it
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise self._unusable(f"it cannot be run: {(error.strerror or 'unknown fault').lower()}") from None
        try:
            output = self._output_of(process)
        except BaseException:
            _kill(process)
            raise
        return (FoundKey(ApiKey.parse(output.decode("latin-1"), self.name), time.time()),)

    def _output_of(self, process: "subprocess.Popen[bytes]") -> bytes:
        """Standard output to its end, then the exit code."""
        assert process.stdout is not None
        deadline_s = time.monotonic() + self.timeout_s
        output = b""
        with process.stdout as stdout:
            while True:
                left_s = deadline_s - time.monotonic()
                if left_s <= 0 or not select.select([stdout], [], [], left_s)[0]:
                    raise self._too_slow()
                piece = os.read(stdout.fileno(), _PIECE_BYTES)
                if not piece:
                    break
                output += piece
                if len(output) > MAX_OUTPUT_BYTES:
                    raise self._unusable(f"it printed more than {MAX_OUTPUT_BYTES // 1024} KiB")
        try:
            code = process.wait(max(0.0, deadline_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise self._too_slow() from None
        if code:
            end = f"exited with code {code}" if code > 0 else f"was ended by signal {-code}"
            raise self._unusable(f"it {end}; run it by hand to see why")
        return output

    def _too_slow(self) -> KeyUnusable:
        return self._unusable(f"it took longer than {self.timeout_s:g} s")

    def _unusable(self, fault: str) -> KeyUnusable:
        return KeyUnusable(self.name, f"cannot be had: {fault}")


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """The program, and whatever it started in its group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
