"""Runs the commands of a page as a reader does: in order, in a terminal, in a clone of the repository.

A block `sh` is a script. In a block `console`, each command begins with `$ `, and its output is below it; `...`
stands for any text. If the line behind a block has the words "In another terminal", the block's command keeps its
terminal; Ctrl+C ends it at the end of its section. `read -rs` takes what the reader types.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[3]
LANGUAGES: Final = ("sh", "console")
"""The languages of blocks that are run."""

_BLOCK = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```\n(?=\n*(?P<after>[^\n]*))", re.MULTILINE | re.DOTALL)
_COMMAND_S = 900.0
_START_S = 900.0
_STOP_S = 60.0


@dataclass(frozen=True, slots=True)
class Command:
    """A script of a page. `output` is None if the page shows none; `keeps_terminal`: it runs until Ctrl+C."""

    script: str
    output: str | None
    keeps_terminal: bool

    @property
    def detaches(self) -> bool:
        """Tells whether the command starts containers in the background."""
        return re.search(r" (-d|--detach)\b", self.script) is not None


def sections(page: str, title: str = "") -> Iterator[list[Command]]:
    """Yields the commands of each section of a page that has any, or only of the section with this title."""
    parts = re.split(r"^#+ (.*)$", _without_indented_blocks(page), flags=re.MULTILINE)
    for own_title, section in zip(["", *parts[1::2]], parts[::2], strict=True):
        if title and own_title != title:
            continue
        if commands := [command for block in _BLOCK.finditer(section + "\n\n") for command in _commands(block)]:
            yield commands


def languages(page: str) -> set[str]:
    """Returns the languages of all blocks of a page; "" is a block without a language."""
    return set(re.findall(r"^ *```(\w*)$.*?^ *```$", page, re.MULTILINE | re.DOTALL))


def _without_indented_blocks(page: str) -> str:
    """Moves the blocks of list items to the margin."""
    return re.sub(
        r"^( +)```\w*\n.*?^\1```$",
        lambda found: re.sub(f"^{found[1]}", "", found[0], flags=re.MULTILINE),
        page,
        flags=re.MULTILINE | re.DOTALL,
    )


def _commands(block: re.Match[str]) -> Iterator[Command]:
    keeps_terminal = "In another terminal" in block["after"]
    if block["language"] == "sh":
        yield Command(block["text"], None, keeps_terminal)
    elif block["language"] == "console":
        for part in re.split(r"^\$ ", block["text"], flags=re.MULTILINE)[1:]:
            lines = part.splitlines(keepends=True)
            count = next(number for number, line in enumerate(lines, 1) if not line.endswith("\\\n"))
            yield Command("".join(lines[:count]), "".join(lines[count:]), keeps_terminal)


def shows(written: str | None, printed: str) -> bool:
    """Tells whether a command's output is the page's. `...` stands for any text, and None for any output."""
    if written is None:
        return True
    pattern = ".*".join(re.escape(part) for part in written.strip().split("..."))
    return re.fullmatch(pattern, printed.strip(), re.DOTALL) is not None


@dataclass
class Reader:
    """Follows a page in `folder`, a copy of the repository, with variables `env`.

    `within` is a command that runs another one on the reader's machine. The reader repeats a command until its
    output is the page's, for at most `patience_s`, and for longer after a start.
    """

    folder: Path
    env: Mapping[str, str]
    within: Sequence[str] = ()
    patience_s: float = 30.0
    seen_from_here: Path | None = None
    """Where the folder is for this process, if the reader's machine has another root."""
    _typed: list[str] = field(default_factory=list)
    _terminal: "subprocess.Popen[bytes] | None" = None

    @property
    def _here(self) -> Path:
        return self.seen_from_here or self.folder

    def clone(self) -> None:
        """Copies the files of this repository that git knows, as they are now, into the folder."""
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
        for name in listed.stdout.split("\0"):
            if name and (ROOT / name).is_file():
                (self._here / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self._here / name)

    def follow(self, page: Path, *typed: str, section: str = "") -> None:
        """Runs all commands of a page or of a section. `typed` are the lines that the reader types, in turn.

        Raises AssertionError on a failed command, and on an output unlike the page's.
        """
        self._typed = list(typed)
        (self._here.parent / "terminal").unlink(missing_ok=True)
        for commands in sections(page.read_text(), section):
            with contextlib.ExitStack() as terminals:
                has_started = False
                for command in commands:
                    if command.keeps_terminal:
                        terminals.enter_context(self._in_own_terminal(command))
                    else:
                        patience_s = 0.0 if command.output is None else self.patience_s
                        self._run(command, _START_S if has_started else patience_s)
                    has_started = command.keeps_terminal or command.detaches
        assert not self._typed, f"{page.name} did not ask for all input"

    def _run(self, command: Command, within_s: float) -> None:
        """Runs a command, and repeats it until its output is the page's, for at most `within_s`."""
        ends_at = time.monotonic() + within_s
        typed = self._input(command.script)
        while True:
            done = subprocess.run(
                self._bash(command.script),
                env=dict(self.env),
                input=typed,
                capture_output=True,
                text=True,
                timeout=_COMMAND_S,
                check=False,
            )
            is_as_written = done.returncode == 0 and shows(command.output, done.stdout)
            has_ended = self._terminal is not None and self._terminal.poll() is not None
            if is_as_written or has_ended or time.monotonic() >= ends_at:
                break
            time.sleep(0.5)
        said = f"{command.script}exit code {done.returncode}\n{done.stdout}{done.stderr}"
        assert is_as_written, f"{said}\nthe page has: {command.output}"

    @contextlib.contextmanager
    def _in_own_terminal(self, command: Command) -> Iterator[None]:
        log = self._here.parent / "terminal.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                self._bash(command.script),
                env=dict(self.env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                process_group=0,
            )
        self._terminal = process
        try:
            yield
            assert process.poll() is None, f"{command.script}ended"
        except AssertionError as error:
            error.add_note(f"the other terminal:\n{log.read_text()[-4000:]}")
            raise
        finally:
            self._terminal = None
            _press_ctrl_c(process)

    def _bash(self, script: str) -> list[str]:
        """Returns a command that runs a script in the working directory and with the variables of the last one."""
        state = self.folder.parent / "terminal"
        begin = f"set -e; cd {self.folder}; [ ! -f {state} ] || . {state}\n"
        end = f"\n{{ export -p; echo cd \"'$PWD'\"; }} > {state}"
        return [*self.within, "bash", "-c", begin + script + end]

    def _input(self, script: str) -> str:
        return "".join(f"{self._typed.pop(0)}\n" for _ in range(script.count("read -rs")))


def _press_ctrl_c(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise AssertionError("Ctrl+C did not end the command") from None
