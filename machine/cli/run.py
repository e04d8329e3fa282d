"""`machine run`: a program on machines, its words exactly as they were typed."""

from __future__ import annotations

import io
import shlex
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING, Annotated, BinaryIO, cast

import typer

from machine.cli import complete, context, output, progress
from machine.errors import UsageError

if TYPE_CHECKING:
    from machine.host import Host


def run(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME... -- COMMAND [WORD]...",
            show_default=False,
            autocompletion=complete.machines,
        ),
    ],
    parallel: context.ParallelWaits = context.WAITS,
) -> None:
    """Run a program on machines and exit with its code. Its words are not read by a shell."""
    at = words.index("--") if "--" in words else len(words)
    argv = words[at + 1 :]
    if not (at and argv):
        raise UsageError(
            "Which program is to be run, and where?", hint="machine run NAME -- uname -a"
        )
    names = context.several(words[:at])
    line = shlex.join(argv)
    if len(names) == 1:
        # Unbuffered, as in `machine ssh`: a thread may still read when Python ends.
        stdin = io.FileIO(0, closefd=False)
        host = context.host(names[0])
        raise typer.Exit(_run(host, line, stdin, sys.stdout.buffer, sys.stderr.buffer))
    width = max(map(len, names))
    jobs = {name: partial(_labelled, context.host(name), line, width) for name in names}
    codes = progress.run(jobs, parallel=parallel)
    for name, code in codes.items():
        if code:
            output.say(f"{name}: ended with code {code}")
    found = set(codes.values())
    raise typer.Exit(found.pop() if len(found) == 1 else 1)


def _run(host: Host, line: str, stdin: BinaryIO, stdout: BinaryIO, stderr: BinaryIO) -> int:
    host.require_running()
    with host.guest() as guest:
        return guest.stream(line, stdin, stdout, stderr)


def _labelled(host: Host, line: str, width: int) -> int:
    """Of several machines: nothing to read, and every line with the machine's name before it."""
    label = f"{host.name:{width}} | ".encode()
    with Lines(sys.stdout.buffer, label) as stdout, Lines(sys.stderr.buffer, label) as stderr:
        return _run(host, line, io.BytesIO(), cast(BinaryIO, stdout), cast(BinaryIO, stderr))


class Lines(io.RawIOBase):
    """Passes whole lines on, each with a label, so that those of several machines do not mix."""

    _lock = threading.Lock()

    def __init__(self, target: BinaryIO, label: bytes) -> None:
        self._target = target
        self._label = label
        self._begun = b""

    def write(self, data: bytes) -> int:  # type: ignore[override]
        *lines, self._begun = (self._begun + data).split(b"\n")
        self._pass_on(lines)
        return len(data)

    def close(self) -> None:
        """The last line may have no end of its own."""
        if self._begun:
            self._pass_on([self._begun])
            self._begun = b""
        super().close()

    def _pass_on(self, lines: list[bytes]) -> None:
        with self._lock:
            self._target.write(b"".join(self._label + line + b"\n" for line in lines))
            self._target.flush()
