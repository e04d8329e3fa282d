"""The serial log of a machine: its tail, and what to show of it after a failed boot."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from machine import wait
from machine.errors import MachineError, lines
from machine.host import Host
from machine.model import Can

TAIL_LINES: Final = 15
_ESCAPES: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\r|\x1bc")
"""Colours and cursor moves (ECMA-48 CSI, and terminal resets) that a boot writes."""


def text(raw: bytes) -> str:
    """The log as text that does no harm to a terminal."""
    clean = _ESCAPES.sub("", raw.decode("utf-8", "replace"))
    return "".join(char for char in clean if char in "\n\t" or char.isprintable())


def tail(host: Host, lines: int) -> tuple[str, int]:
    """The last lines, and the offset from which ``follow`` goes on."""
    raw, offset = host.driver.console()
    kept = text(raw).splitlines()[-lines:] if lines else []
    return "\n".join(kept), offset


def follow(host: Host, offset: int) -> Iterator[str]:
    """New text as it comes, for ever; the caller's Ctrl-C ends it."""
    while True:
        raw, offset = host.driver.console(offset)
        if raw:
            yield text(raw)
        else:
            wait.pause(0.3)


def explain(host: Host, details: str) -> str:
    """``details`` with what the provider knows and the console's last lines."""
    parts = [details]
    try:
        parts.append(host.driver.explain())
        if Can.CONSOLE not in host.driver.can:
            return lines(*parts)
        log, _ = tail(host, TAIL_LINES)
        parts.append(f"Last lines of its console:\n{log}" if log else "Its console is empty.")
    except MachineError as exc:
        parts.append(f"(Its console could not be read: {exc})")
    return lines(*parts)


def logs(host: Host, lines: int = 500) -> tuple[str, str]:
    """What a machine wrote last, and what that is: its console's, or where there is none, its
    engine's log, which takes a login. Raises as ``Host.guest``."""
    if Can.CONSOLE in host.driver.can:
        return "console", tail(host, lines)[0] or "Its console is empty."
    with host.guest() as guest:
        words = ("journalctl", "-u", host.engine.service, "-n", f"{lines}", "--no-pager")
        shown = guest.run(*words, sudo=True, check=False)
    return "log of its engine", text((shown.stdout or shown.stderr).encode())
