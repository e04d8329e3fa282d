"""tcsh and csh."""

from __future__ import annotations


def assign(name: str, value: str) -> str:
    """Single quotes keep all but themselves, ``!`` (history) and a newline."""
    quoted = value.replace("'", "'\\''").replace("!", "\\!").replace("\n", "\\\n")
    return f"setenv {name} '{quoted}';"


def unset(name: str) -> str:
    return f"unsetenv {name};"


def hint(command: str) -> str:
    return f": Run this command to configure your shell:\n: eval `{command}`\n"
