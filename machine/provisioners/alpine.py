"""Alpine: OpenRC and busybox; its engine comes from upstream's own archive."""

from __future__ import annotations

from machine.provisioners.openrc import OpenRc


class Alpine(OpenRc):
    name = "alpine"
    ids = frozenset({"alpine"})
