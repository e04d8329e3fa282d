"""Arch Linux: systemd; its engine comes from upstream's own archive."""

from __future__ import annotations

from machine.provisioners.systemd import Systemd


class Arch(Systemd):
    name = "arch"
    ids = frozenset({"arch", "archarm"})
