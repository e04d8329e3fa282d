"""fish."""

from __future__ import annotations


def assign(name: str, value: str) -> str:
    for char in ("\\", '"', "$"):
        value = value.replace(char, "\\" + char)
    return f'set -gx {name} "{value}";'


def unset(name: str) -> str:
    return f"set -e {name};"


def hint(command: str) -> str:
    return f"# Run this command to configure your shell:\n# eval ({command})\n"
