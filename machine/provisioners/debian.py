"""Debian and what is like it: dpkg, systemd."""

from __future__ import annotations

import shlex
from typing import Final

from machine.errors import CommandFailed
from machine.provisioners.systemd import Systemd

# Only what is missing or older than the bundle's is installed. policy-rc.d keeps services from
# starting (Debian Policy 9.3.3): the engine starts once, when its configuration is in place.
# A dpkg that was killed half-way is brought to its end first. flock waits for another dpkg or apt
# (a cloud image's first-boot updates): they hold the same lock files.
_INSTALL: Final = """
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
cd {folder}
policy=/usr/sbin/policy-rc.d
trap 'rm -f $policy' EXIT
printf '#!/bin/sh\\nexit 101\\n' > $policy
chmod 755 $policy
tries=0
until dpkg --force-confold --configure -a >/dev/null 2>/tmp/.machine-dpkg; do
    grep -q 'lock' /tmp/.machine-dpkg && [ $tries -lt 90 ] || {{ cat /tmp/.machine-dpkg >&2; exit 1; }}
    tries=$((tries + 1)); sleep 2
done
wanted=''
for file in *.deb; do
    set -- $(dpkg-deb --show --showformat='${{Package}} ${{Version}}' "$file")
    have=$(dpkg-query --show --showformat='${{db:Status-Status}} ${{Version}}' "$1" 2>/dev/null || true)
    case $have in
        "installed "*) dpkg --compare-versions "${{have#installed }}" ge "$2" && continue ;;
    esac
    wanted="$wanted $file"
done
[ -z "$wanted" ] || dpkg --force-confold --force-unsafe-io --install $wanted
"""


class Debian(Systemd):
    name = "debian"
    ids = frozenset({"debian", "ubuntu"})

    def install_packages(self, folder: str) -> None:
        try:
            self.guest.script(_INSTALL.format(folder=shlex.quote(folder)), sudo=True, timeout=900)
        except CommandFailed as exc:
            raise CommandFailed(
                "Installing the engine's packages failed", code=exc.code, details=exc.details
            ) from exc
