"""A host whose side of a session was recorded: it answers what the record says, and nothing else."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from machine.command import Result
from machine.errors import CommandFailed

Answer = str | tuple[int, str]


class Replay:
    """A ``Guest``. ``answers`` are by command line: standard output, or a code other than 0 with
    what was said; a list holds those of one call after the other. ``files`` are contents by path,
    which are read and written as on a host."""

    user = "root"

    def __init__(
        self,
        answers: Mapping[str, Answer | list[Answer]] | None = None,
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        self.answers = dict(answers or {})
        self.files = dict(files or {})
        self.modes: dict[str, int] = {}
        self.asked: list[str] = []

    def run(
        self,
        *argv: str,
        sudo: bool = False,
        stdin: bytes | None = None,
        timeout: float = 60,
        check: bool = True,
        hide: Sequence[str] = (),
    ) -> Result:
        line = shlex.join(argv)
        self.asked.append(line)
        if argv[:2] in (("test", "-x"), ("test", "-e")) and line not in self.answers:
            return Result(argv, int(argv[2] not in self.files), "", "")
        if argv[:2] == ("rm", "-f"):
            return Result(argv, 0, "", str(self.files.pop(argv[2], "")))
        assert line in self.answers, f"The record has no answer to: {line}"
        recorded = self.answers[line]
        answer = recorded.pop(0) if isinstance(recorded, list) else recorded
        code, said = answer if isinstance(answer, tuple) else (0, answer)
        if code and check:
            raise CommandFailed(f"{argv[0]} ended with code {code}", code=code, details=said)
        return Result(argv, code, said, said if code else "")

    def script(
        self, text: str, *, sudo: bool = False, timeout: float = 60, check: bool = True
    ) -> Result:
        return self.run("sh", "-c", text, sudo=sudo, check=check)

    def put(
        self,
        content: bytes | Path,
        path: str,
        *,
        mode: int = 0o644,
        owner: str = "root:root",
        progress: Callable[[int, int], None] | None = None,
        timeout: float = 600,
    ) -> None:
        self.files[path] = content if isinstance(content, bytes) else content.read_bytes()
        self.modes[path] = mode

    def get(self, path: str, *, sudo: bool = False) -> bytes | None:
        return self.files.get(path)

    def get_all(self, paths: Sequence[str], *, sudo: bool = False) -> dict[str, bytes | None]:
        return {path: self.get(path) for path in paths}

    def ask(self, *commands: Sequence[str], sudo: bool = False) -> list[Result]:
        return [self.run(*words, check=False) for words in commands]
