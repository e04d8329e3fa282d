"""The only place that starts programs on this computer."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn

from machine.errors import CommandFailed, TimedOut


@dataclass(frozen=True, slots=True)
class Result:
    """How a program ended, here or on a guest."""

    argv: tuple[str, ...]
    code: int
    stdout: str
    stderr: str

    @property
    def ok(self) -> bool:
        return self.code == 0


def which(program: str) -> str | None:
    """The program's path; /usr/sbin and /sbin are searched too (an ordinary user's PATH lacks them)."""
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    return shutil.which(program, path=path)


def missing(packages: Mapping[str, str]) -> list[str]:
    """Of packages by the programs that are needed of them, those whose program is not there; each
    once."""
    found = (package for program, package in packages.items() if not which(program))
    return list(dict.fromkeys(found))


def run(
    *argv: str | Path,
    check: bool = True,
    timeout: float = 60,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Result:
    """Run a program to its end in the C locale, standard input closed unless given.

    ``timeout`` is seconds. Raises CommandFailed for a code other than 0 (``check``) and for a
    program that is not there (code 127); TimedOut when it had to be killed.
    """
    words = tuple(str(word) for word in argv)
    found = _found(words[0])
    try:
        done = subprocess.run(
            [found, *words[1:]],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            timeout=timeout,
            env={**os.environ, "LC_ALL": "C.UTF-8", **(env or {})},
            cwd=cwd,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise TimedOut(
            f"{words[0]} did not end within {timeout:.0f} s", details=shlex.join(words)
        ) from exc
    result = Result(words, done.returncode, _text(done.stdout), _text(done.stderr))
    if check and not result.ok:
        raise CommandFailed(
            f"{words[0]} ended with code {result.code}",
            code=result.code,
            details=f"$ {shlex.join(words)}\n{(result.stderr or result.stdout).strip()}",
        )
    return result


@dataclass(frozen=True, slots=True)
class Pipe:
    """A program that runs behind a socket, until that is closed."""

    socket: socket.socket
    _errors: IO[bytes]

    def said(self) -> str:
        """What it wrote on standard error so far."""
        self._errors.seek(0)
        return _text(self._errors.read()).strip()


def pipe(*argv: str) -> Pipe:
    """Start a program whose standard input and output are the other end of a socket. Raises
    CommandFailed for one that is not there."""
    found = _found(argv[0])
    ours, its = socket.socketpair()
    errors = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the pipe
    with its:
        process = subprocess.Popen(
            [found, *argv[1:]], stdin=its.fileno(), stdout=its.fileno(), stderr=errors
        )
    threading.Thread(target=process.wait, daemon=True).start()
    return Pipe(ours, errors)


def attached(argv: Sequence[str]) -> int:
    """Run a program that has this one's terminal until it ends; answers its code. Raises
    CommandFailed for one that is not there."""
    found = _found(argv[0])
    return subprocess.run([found, *argv[1:]], check=False).returncode


def foreground(*argv: str, env: Mapping[str, str | None]) -> int:
    """As ``attached``, for who has to put things away afterwards. Ctrl-C is the program's
    affair; when we are told to end, or lose the terminal, it is told so, and we go on when it has
    ended. None in ``env`` unsets. Called in the main thread. Raises CommandFailed for a program that
    is not there."""
    found = _found(argv[0])
    full = {**os.environ, **{name: value for name, value in env.items() if value is not None}}
    for name in [name for name, value in env.items() if value is None]:
        full.pop(name, None)
    passed_on = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *passed_on)}
    try:
        # A handler, for what is ignored the program would ignore, too.
        signal.signal(signal.SIGINT, lambda *_: None)
        with subprocess.Popen([found, *argv[1:]], env=full) as process:
            for number in passed_on:
                signal.signal(number, lambda number, _: process.send_signal(number))
            code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code


def replace_process(argv: Sequence[str]) -> NoReturn:
    """Become another program (interactive ssh). Returns never, or raises CommandFailed."""
    found = _found(argv[0])
    os.execv(found, list(argv))


def _found(program: str) -> str:
    if path := which(program):
        return path
    raise CommandFailed(f"The program {program} is not installed", code=127)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
