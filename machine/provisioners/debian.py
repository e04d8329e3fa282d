"""Debian and what is like it: dpkg, systemd."""

from __future__ import annotations

import shlex
from typing import Final

from machine.errors import CommandFailed
from machine.provisioners.systemd import Systemd

# Only what is missing or older than the bundle's is installed. policy-rc.d keeps services from
# starting (Debian Policy 9.3.3): the engine starts once, when its configuration is in place.
# A dpkg that was killed half-way is brought to its end first. Another dpkg or apt (a cloud image
# updates itself) has the lock for as long as it runs, and may take it between our two calls.
_INSTALL: Final = """
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
cd {folder}
policy=/usr/sbin/policy-rc.d
trap 'rm -f $policy' EXIT
printf '#!/bin/sh\\nexit 101\\n' > $policy
chmod 755 $policy
patiently() {{
    tries=0
    until said=$(dpkg --force-confold --force-unsafe-io "$@" 2>&1 >/dev/null); do
        case $said in *'locked by '*' process'*) ;; *) tries=90 ;; esac
        [ $tries -lt 90 ] || {{ echo "$said" >&2; exit 1; }}
        tries=$((tries + 1)); sleep 2
    done
}}
patiently --configure -a
wanted=''
for file in *.deb; do
    set -- $(dpkg-deb --show --showformat='${{Package}} ${{Version}}' "$file")
    have=$(dpkg-query --show --showformat='${{db:Status-Status}} ${{Version}}' "$1" 2>/dev/null || true)
    case $have in
        "installed "*) dpkg --compare-versions "${{have#installed }}" ge "$2" && continue ;;
    esac
    wanted="$wanted $file"
done
[ -z "$wanted" ] || patiently --install $wanted
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
