"""Secrets by reference: a record says where one is, and never what it is."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Final

from machine import command
from machine.errors import MachineError, SecretMissing
from machine.redaction import remember


def or_variable(reference: str, name: str) -> str:
    """The reference, or one to a variable that is set, or ""."""
    return reference or (f"env:{name}" if os.environ.get(name) else "")


def resolve(reference: str) -> str:
    """The secret that a reference stands for, read anew each time, so that one that was exchanged
    counts at once. It is redacted from now on. Raises SecretMissing."""
    kind, _, rest = reference.partition(":")
    try:
        found = _READERS[kind](rest)
    except KeyError:
        raise SecretMissing("A secret is named by no reference", hint=_HINT) from None
    found = found.rstrip("\r\n")
    if not found:
        raise SecretMissing(f"The secret {reference} is empty", hint=_HINT)
    return remember(found)


def _env(name: str) -> str:
    if name not in os.environ:
        raise SecretMissing(f"The variable {name} is not set", hint=f"export {name}=...")
    return os.environ[name]


def _file(path: str) -> str:
    try:
        return Path(path).expanduser().read_text()
    except (OSError, UnicodeDecodeError) as exc:
        raise SecretMissing(f"The secret in {path} cannot be read", details=str(exc)) from exc


def _command(line: str) -> str:
    try:
        return command.run(*shlex.split(line), timeout=60).stdout
    except (MachineError, ValueError) as exc:
        raise SecretMissing(f"The command {line!r} gives no secret", details=str(exc)) from exc


def _keyring(entry: str) -> str:
    service, _, user = entry.partition("/")
    try:
        import keyring
        from keyring.errors import KeyringError
    except ImportError:
        raise SecretMissing(
            "The keyring cannot be asked: the Python package keyring is not installed",
            hint="pip install 'machine-vm[keyring]'",
        ) from None
    try:
        found = keyring.get_password(service, user)
    except KeyringError as exc:
        raise SecretMissing("The keyring cannot be asked", details=str(exc)) from exc
    if found is None:
        raise SecretMissing(
            f"The keyring has nothing for {service} and {user!r}",
            hint=f"keyring set {shlex.quote(service)} {shlex.quote(user)}",
        )
    return found


_READERS: Final[dict[str, Callable[[str], str]]] = {
    "env": _env,
    "file": _file,
    "command": _command,
    "keyring": _keyring,
}
_HINT: Final = "A secret is given as env:NAME, file:PATH, command:WORDS or keyring:SERVICE/USER"
