"""Emacs Lisp."""

from __future__ import annotations


def assign(name: str, value: str) -> str:
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'(setenv "{name}" "{quoted}")'


def unset(name: str) -> str:
    return f'(setenv "{name}" nil)'


def hint(command: str) -> str:
    return (
        ";; Run this command to configure your shell:\n"
        f';; (with-temp-buffer (shell-command "{command}" (current-buffer)) (eval-buffer))\n'
    )
