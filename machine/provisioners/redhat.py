"""The Red Hat family: systemd; its engine comes from upstream's own archive."""

from __future__ import annotations

from machine.provisioners.systemd import Systemd


class RedHat(Systemd):
    name = "redhat"
    ids = frozenset({"rhel", "fedora", "centos", "rocky", "almalinux", "ol", "amzn"})
