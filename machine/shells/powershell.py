"""PowerShell, on every system."""

from __future__ import annotations


def assign(name: str, value: str) -> str:
    """Single quotes keep all but themselves, which are doubled (about_Quoting_Rules)."""
    quoted = value.replace("'", "''")
    return f"$Env:{name} = '{quoted}'"


def unset(name: str) -> str:
    return f"Remove-Item Env:\\{name}"


def hint(command: str) -> str:
    return f"# Run this command to configure your shell:\n# & {command} | Invoke-Expression\n"
