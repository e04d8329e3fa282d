"""SUSE and openSUSE: systemd; their engine comes from upstream's own archive."""

from __future__ import annotations

from machine.provisioners.systemd import Systemd


class Suse(Systemd):
    name = "suse"
    ids = frozenset({"suse", "opensuse", "opensuse-leap", "opensuse-tumbleweed", "sles", "sled"})
