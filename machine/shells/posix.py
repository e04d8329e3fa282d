"""sh, bash, zsh and their kin."""

from __future__ import annotations


def quote(value: str) -> str:
    """Inside double quotes four characters mean something (POSIX 2.2.3)."""
    for char in ("\\", '"', "$", "`"):
        value = value.replace(char, "\\" + char)
    return f'"{value}"'


def assign(name: str, value: str) -> str:
    return f"export {name}={quote(value)}"


def unset(name: str) -> str:
    return f"unset {name}"


def hint(command: str) -> str:
    return f"# Run this command to configure your shell:\n# eval $({command})\n"
