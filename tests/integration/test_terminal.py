"""What a user sees on a terminal: a real one (a pty), and the screen as it stands in the end."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pexpect
import pytest

pytestmark = pytest.mark.filterwarnings("ignore:.*forkpty:DeprecationWarning")

PROGRAM = """
import sys
import threading
from machine.cli import output, progress
from machine.errors import MachineError
from machine.events import Reporter

names = sys.argv[1].split(",")
emit = progress.sink(as_json=False, prefix=len(names) > 1)
reading = threading.Lock()

def wait():
    with reading:
        line = sys.stdin.readline()
    if line == "fail\\n":
        raise MachineError("It did not work", hint="machine console web")

def work(name):
    report = Reporter(emit, name)
    with report.step("preflight", "Checking"):
        pass
    with report.step("image", "Getting the image"):
        with report.step("packages", "Getting the packages"):
            report.warn("it is slow")
        with report.step("disk", "Making the disk"):
            wait()
    with report.step("vm", "Making the VM"):
        report.progress("vm", 80 << 20, 100 << 20)
        report.progress("vm", 100 << 20, 100 << 20)
        for done in range(0, 60, 10):
            report.progress("vm", done << 20, 100 << 20)
        wait()

jobs = {name: lambda name=name: work(name) for name in names}
try:
    progress.run(jobs, left=lambda name: f"{name} is unfinished")
    output.say("everything is ready")
except MachineError as exc:
    output.error(exc)
    sys.exit(1)
"""


class Screen:
    """The terminal's side: exactly the control sequences that may be sent to it, and no other."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.rows = [""]
        self.at = (0, 0)  # row, column
        self.cursor = True
        self.raw = ""
        self._rest = ""

    def feed(self, text: str) -> None:
        self.raw += text
        self._rest += text
        while token := re.match(r"\x1b\[[?0-9;]*[A-Za-z]|[^\x1b]", self._rest):
            self._rest = self._rest[token.end() :]
            self._one(token[0])

    def _one(self, part: str) -> None:
        row, column = self.at
        if part == "\r":
            self.at = (row, 0)
        elif part == "\n":
            self.at = (row + 1, column)
            self.rows += [""] * (row + 2 - len(self.rows))
        elif part == "\x1b[2K":
            self.rows[row] = ""
        elif moved := re.fullmatch(r"\x1b\[(\d*)A", part):
            self.at = (row - int(moved[1] or 1), column)
            assert self.at[0] >= 0
        elif part in ("\x1b[?25l", "\x1b[?25h"):
            self.cursor = part.endswith("h")
        elif not re.fullmatch(r"\x1b\[[0-9;]*m", part):
            assert part.isprintable(), f"{part!r} is not known to this terminal"
            if column == self.columns:
                self._one("\r")
                self._one("\n")
                row, column = self.at
            line = self.rows[row].ljust(column)
            self.rows[row] = line[:column] + part + line[column + 1 :]
            self.at = (row, column + 1)

    @property
    def lines(self) -> list[str]:
        """What stands there, seconds as N and the spinner as *."""
        text = "\n".join(row.rstrip() for row in self.rows).strip("\n")
        return re.sub(r"[⠁-⣿]", "*", re.sub(r"\d+(\.\d+)? s\b", "N s", text)).split("\n")


class Terminal:
    """A program on a pty whose output goes to a Screen."""

    def __init__(self, *argv: str, columns: int = 80, env: Mapping[str, str] | None = None) -> None:
        unset = ("CI", "NO_COLOR", "COLUMNS", "LINES")
        environment = {name: value for name, value in os.environ.items() if name not in unset}
        environment.update({"TERM": "xterm", "LC_ALL": "C.UTF-8", **(env or {})})
        self.screen = Screen(columns)
        self.child: pexpect.spawn[str] = pexpect.spawn(
            sys.executable,
            list(argv),
            env=environment,
            encoding="utf-8",
            dimensions=(24, columns),
            echo=False,
            timeout=30,
        )

    def until(self, seen: Callable[[list[str]], bool]) -> list[str]:
        """Read until the screen is as wanted."""
        end = time.monotonic() + 60
        while not seen(self.screen.lines):
            assert time.monotonic() < end, self.screen.lines
            self.screen.feed(self.child.read_nonblocking(4096, timeout=30))
        return self.screen.lines

    def end(self) -> list[str]:
        """Read until the program has ended."""
        with contextlib.suppress(pexpect.EOF):
            self.until(lambda lines: False)
        self.child.close()
        return self.screen.lines

    @property
    def code(self) -> int | None:
        return self.child.exitstatus


@pytest.fixture
def program(tmp_path: Path) -> str:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return str(path)


DONE = [
    "Warning: it is slow",
    "✓ Getting the image  N s",
    "  ✓ Getting the packages  N s",
    "  ✓ Making the disk  N s",
]


def test_finished_steps_stay_and_those_at_work_move(program: str) -> None:
    terminal = Terminal(program, "web")
    working = [
        "* Getting the image  N s",
        "  ✓ Getting the packages  N s",
        "  * Making the disk  N s",
    ]
    shown = terminal.until(lambda lines: lines[-3:] == working)
    assert shown == ["✓ Checking  N s", "Warning: it is slow", *working]
    terminal.child.sendline("go on")
    moving = "  ━━━━━━━━━━╺━━━━━━━━━  50/100 MiB  "
    shown = terminal.until(lambda lines: lines[-1].startswith(moving))
    assert shown[:-1] == ["✓ Checking  N s", *DONE, "* Making the VM  N s"]
    assert re.fullmatch(moving + r"[0-9.]+ [KMG]iB/s  N s left", shown[-1])
    terminal.child.sendline("go on")
    ended = terminal.end()
    assert ended == ["✓ Checking  N s", *DONE, "✓ Making the VM  N s", "everything is ready"]
    assert terminal.screen.cursor
    assert terminal.code == 0


def test_a_narrow_terminal_shows_less_and_stays_in_order(program: str) -> None:
    terminal = Terminal(program, "web", columns=24)
    terminal.until(lambda lines: lines[-1].startswith("  * Makin"))
    terminal.child.sendline("go on")
    shown = terminal.until(lambda lines: "50/100 MiB" in lines[-1])
    assert shown[-1].endswith("…")
    terminal.child.sendline("go on")
    ended = terminal.end()
    assert [line[:11] for line in ended] == [
        "✓ Checking ",
        "Warning: it",
        "✓ Getting t",
        "  ✓ Getting",
        "  ✓ Making ",
        "✓ Making th",
        "everything ",
    ]
    assert sum(line.endswith("…  N s") for line in ended) >= 2


def test_several_machines_have_a_row_each(program: str) -> None:
    terminal = Terminal(program, "web,worker10")
    rows = ["web       * Making the disk  N s", "worker10  * Making the disk  N s"]
    terminal.until(lambda lines: sorted(lines[-2:]) == rows)
    terminal.child.sendline("go on")
    shown = terminal.until(lambda lines: lines[-1].endswith("50 %") or lines[-2].endswith("50 %"))
    assert sorted(line.split("  ")[-1] for line in shown[-2:]) == ["50 %", "N s"]
    for _ in range(3):
        terminal.child.sendline("go on")
    ended = terminal.end()
    assert ended[-1] == "everything is ready"
    for name in ("web       ", "worker10  "):
        own = [line.removeprefix(name) for line in ended if line.startswith(name)]
        assert own == ["✓ Checking  N s", *DONE, "✓ Making the VM  N s"]


def test_ctrl_c_leaves_the_terminal_as_it_was(program: str) -> None:
    terminal = Terminal(program, "web")
    terminal.until(lambda lines: "Making the disk" in lines[-1])
    assert not terminal.screen.cursor
    terminal.child.sendintr()
    ended = terminal.end()
    assert ended == [
        "✓ Checking  N s",
        "Warning: it is slow",
        "✗ Getting the image  stopped after N s",
        "  ✓ Getting the packages  N s",
        "  ✗ Making the disk  stopped after N s",
        "",
        "Interrupted.",
        "web is unfinished",
    ]
    assert terminal.screen.cursor
    assert terminal.code == 130


def test_an_error_is_told_when_nothing_moves_any_more(program: str) -> None:
    terminal = Terminal(program, "web,db")
    terminal.until(lambda lines: all("Making the disk" in line for line in lines[-2:]))
    terminal.child.sendline("fail")
    for _ in range(2):
        terminal.child.sendline("go on")
    ended = terminal.end()
    assert ended[-2:] == ["Error: It did not work", "  machine console web"]
    assert sum("failed after N s" in line for line in ended) == 2  # the inner and the outer step
    assert terminal.screen.cursor
    assert terminal.code == 1


@pytest.mark.parametrize("env", [{"TERM": "dumb"}, {"CI": "true"}])
def test_where_nothing_can_move_there_are_plain_lines(host: str, env: dict[str, str]) -> None:
    terminal = Terminal("-m", "machine", "stop", host, env=env)
    assert terminal.end() == ["Shutting down ...", "Shutting down: done in N s"]
    assert "\x1b" not in terminal.screen.raw


@pytest.mark.parametrize(
    ("words", "question"),
    [
        (("rm",), "Are you sure? (y/n): "),
        (
            ("regenerate-certs",),
            "Regenerate TLS machine certs?  Warning: this is irreversible. (y/n): ",
        ),
    ],
)
def test_a_question_is_answered_on_its_line(
    host: str, words: tuple[str, ...], question: str
) -> None:
    for answer in ("no", "", "\x04"):  # the last is Ctrl-D
        terminal = Terminal("-m", "machine", *words, host)
        terminal.until(lambda lines: lines[-1] == question.rstrip())
        assert terminal.screen.at[1] == len(question)
        terminal.child.sendline(answer)
        assert terminal.end()[-1] == question.rstrip()
        assert terminal.code == 0
    terminal = Terminal("-m", "machine", "rm", host)
    terminal.until(lambda lines: lines[-1].endswith("(y/n):"))
    terminal.child.sendline("Yes")
    assert terminal.end()[-2:] == ["✓ Removing the machine  N s", f"Successfully removed {host}"]


def test_a_command_on_a_terminal_with_and_without_colour(host: str) -> None:
    colour = re.compile(r"\x1b\[(\d+;)*[349]\d(;\d+)*m")
    stopped = Terminal("-m", "machine", "stop", host)
    assert stopped.end() == ["✓ Shutting down  N s"]
    assert colour.search(stopped.screen.raw)
    restarted = Terminal("-m", "machine", "restart", host, env={"NO_COLOR": "1"})
    assert restarted.end()[0] == "✓ Starting the VM  N s"
    assert not colour.search(restarted.screen.raw)
