"""Windows' cmd.exe."""

from __future__ import annotations


def assign(name: str, value: str) -> str:
    """A caret keeps cmd's operators; a percent sign is doubled, as in a batch file."""
    for char in "^&<>|":
        value = value.replace(char, "^" + char)
    return f"SET {name}={value.replace('%', '%%')}"


def unset(name: str) -> str:
    return f"SET {name}="


def hint(command: str) -> str:
    return (
        "REM Run this command to configure your shell:\n"
        f"REM @FOR /f \"tokens=*\" %i IN ('{command}') DO @%i\n"
    )
