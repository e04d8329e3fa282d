"""What systemd is told of a service, as text: for hosts that run, and for images before they do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from machine.model import GuestFile

FOLDER: Final = "/etc/systemd/system"
FIRST: Final = "10-machine.conf"
"""docker-machine's name for it."""
LAST: Final = "zz-machine.conf"
"""Where one of the user's would come after the first and undo it: systemd.unit(5) sorts by name."""
PREFIXES: Final = "-@:+!"
"""Of a command in a unit, with meanings of their own (systemd.service(5))."""


def drop_in(unit: str, command: str, env: Sequence[str] = (), name: str = FIRST) -> GuestFile:
    """A unit's other command, in systemd's own syntax, and variables of its (K=V)."""
    lines = ["[Service]", "ExecStart=", f"ExecStart={command}"]
    lines += [f"Environment={quoted(each, always=True)}" for each in env]
    return GuestFile(f"{FOLDER}/{unit}.d/{name}", "".join(f"{line}\n" for line in lines).encode())


def joined(words: Sequence[str]) -> str:
    """Words as a command in a unit: there, a dollar sign is a variable's."""
    return " ".join(quoted(word.replace("$", "$$")) for word in words)


def quoted(text: str, *, always: bool = False) -> str:
    """systemd.exec(5), systemd.unit(5): quotes group, backslash escapes, % is a specifier."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    plain = escaped == text and text and not set(text) & set(" \t'")
    return escaped if plain and not always else f'"{escaped}"'


def command_of(shown: str, *, without: Sequence[str]) -> str:
    """A unit's command as `systemctl cat` shows it, as if it had not the drop-ins called so; ""
    if it has none."""
    command = ""
    for _, value in _commands(shown, without):
        command = value
    return command.lstrip(PREFIXES)


def is_overruled(shown: str, *, name: str) -> bool:
    """Whether a drop-in of somebody else's that comes after one called ``name`` sets the command."""
    files = (path.rpartition("/")[2] for path, _ in _commands(shown, (FIRST, LAST)))
    return any(".conf" in file and file > name for file in files)


def _commands(shown: str, without: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each ExecStart= with the file it is in; the last one counts, for an empty one forgets those
    before it, and a service has one only."""
    path, section = "", ""
    for line in _whole_lines(shown):
        if line.startswith("# /"):
            path = line[2:]
        elif line.startswith("["):
            section = line
        elif path.rpartition("/")[2] not in without and section == "[Service]":
            key, sign, value = line.partition("=")
            if sign and key.strip() == "ExecStart":
                yield path, value.strip()


def _whole_lines(text: str) -> Iterator[str]:
    """Lines without blanks around them; those that end with a backslash go on."""
    begun = ""
    for raw in text.splitlines():
        line = raw.strip()
        if begun and line.startswith(("#", ";")):
            continue
        if line.endswith("\\"):
            begun += line[:-1] + " "
            continue
        yield begun + line
        begun = ""
