"""TOML files that people write: where a key stands, so that a mistake can be named with its line."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machine.errors import MachineError


@dataclass(frozen=True, slots=True)
class TomlFile:
    """A file's values, the text that they were read from, and the error that a mistake is."""

    path: Path
    text: str
    values: dict[str, Any]
    failed: type[MachineError]

    @classmethod
    def read(cls, path: Path, failed: type[MachineError]) -> TomlFile:
        """Raises ``failed`` for what is not there, or no TOML in UTF-8."""
        try:
            text = path.read_bytes().decode()
            return cls(path, text, tomllib.loads(text), failed)
        except tomllib.TOMLDecodeError as exc:
            at = re.search(r"at line (\d+)", str(exc))
            line = at[1] if at else text.count("\n") + 1
            raise failed(f"{path}:{line}: {exc}") from None
        except (OSError, UnicodeDecodeError) as exc:
            raise failed(f"{path} cannot be read: {exc}") from exc

    def mistake(self, keys: Sequence[str], problem: str, hint: str = "") -> MachineError:
        """The error to raise: "FILE:LINE: KEY.KEY: problem", which editors turn into a link."""
        line = line_of(self.text, keys)
        return self.failed(f"{self.path}:{line}: {'.'.join(keys)}: {problem}", hint=hint)


def unknown(key: str, known: Collection[str]) -> str:
    """The problem of a key that is none of these."""
    close = difflib.get_close_matches(key, known, 1)
    return "unknown key" + (f"; did you mean {close[0]}?" if close else "")


def line_of(text: str, keys: Sequence[str]) -> int:
    """The line on which the statement starts that sets a key, however it is written: under a table
    head, dotted, in an inline table. Found by reading longer and longer beginnings of the text: one
    that ends inside a statement is no TOML."""
    lines = text.replace("\r\n", "\n").split("\n")
    start = 1
    for end in range(1, len(lines) + 1):
        try:
            values = tomllib.loads("\n".join(lines[:end]))
        except tomllib.TOMLDecodeError:
            continue
        if _holds(values, keys):
            return start
        start = end + 1
    return 1


def _holds(values: object, keys: Sequence[str]) -> bool:
    for key in keys:
        if not isinstance(values, Mapping) or key not in values:
            return False
        values = values[key]
    return True
