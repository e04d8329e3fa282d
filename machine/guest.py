"""What provisioners and engines see of a host: run, script, put, get; and many at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from machine.command import Result


class Guest(Protocol):
    """A host that is logged in to. Every method may be called any number of times, in any order.

    All raise GuestUnreachable when the connection is lost and TimedOut when ``timeout`` (seconds,
    for the whole call) is over.
    """

    user: str

    def run(
        self,
        *argv: str,
        sudo: bool = False,
        stdin: bytes | None = None,
        timeout: float = 60,
        check: bool = True,
        hide: Sequence[str] = (),
    ) -> Result:
        """Run one program, its words quoted. Raises CommandFailed for a code other than 0
        when ``check``; the strings in ``hide`` are masked in every message."""
        ...

    def script(
        self, text: str, *, sudo: bool = False, timeout: float = 60, check: bool = True
    ) -> Result:
        """Feed ``text`` to ``sh -eu`` over standard input."""
        ...

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
        """Write a file beside ``path`` and move it there, with owner and mode set before its
        content can be read by others. ``progress`` is told bytes done and bytes in all."""
        ...

    def get(self, path: str, *, sudo: bool = False) -> bytes | None:
        """A file's content; None where there is none."""
        ...

    def get_all(self, paths: Sequence[str], *, sudo: bool = False) -> dict[str, bytes | None]:
        """``get`` of many, in one round trip."""
        ...

    def ask(self, *commands: Sequence[str], sudo: bool = False) -> list[Result]:
        """Run programs that only look, one after the other in one round trip, whatever their codes
        are. Answers have no standard error, and no newlines at the end of their output."""
        ...
