"""Debian and what is like it: dpkg, systemd."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping
from typing import Final

from machine.errors import CommandFailed
from machine.provisioners.systemd import Systemd

# Only what is missing or older than the bundle's is installed. policy-rc.d keeps services from
# starting (Debian Policy 9.3.3): the engine starts once, when its configuration is in place.
# A dpkg that was killed half-way is brought to its end first, as far as that goes: what it had
# unpacked may need what it had not come to, and is installed again. Another dpkg or apt (a cloud image
# updates itself) has the lock for as long as it runs, and may take it between our two calls.
_DPKG: Final = """
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
"""
_INSTALL: Final = (
    _DPKG
    + """
(patiently --configure -a 2>/dev/null) || true
wanted=''
for file in *.deb; do
    set -- $(dpkg-deb --show --showformat='${{Package}} ${{Version}}' "$file")
    have=$(dpkg-query --show --showformat='${{db:Status-Status}} ${{Version}}' "$1" 2>/dev/null || true)
    case $have in
        "installed "*) dpkg --compare-versions "${{have#installed }}" {enough} "$2" && continue ;;
    esac
    wanted="$wanted $file"
done
[ -z "$wanted" ] || patiently --auto-deconfigure --install $wanted
patiently --configure -a
"""
)
# What was added goes first: it may not stand beside the older ones, which need it no more.
_RESTORE: Final = (
    _DPKG
    + """
set -- {added}
[ $# -eq 0 ] || patiently --force-depends --remove "$@"
set -- {files}
[ $# -eq 0 ] || patiently --auto-deconfigure --install "$@"
patiently --configure -a
"""
)
_REMOVE: Final = """
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
dpkg --remove {names} >/dev/null || true
"""
_PURGE: Final = """
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
left=''
for name in {names}; do
    state=$(dpkg-query --show --showformat='${{db:Status-Status}}' "$name" 2>/dev/null || true)
    [ "$state" != config-files ] || left="$left $name"
done
[ -z "$left" ] || dpkg --purge $left >/dev/null
"""


class Debian(Systemd):
    name = "debian"
    ids = frozenset({"debian", "ubuntu"})

    def install_packages(self, folder: str, *, exact: bool = False) -> None:
        enough = "eq" if exact else "ge"
        self._dpkg(
            _INSTALL.format(folder=shlex.quote(folder), enough=enough),
            "Installing the engine's packages failed",
        )

    def restore_packages(self, folder: str, files: Collection[str], added: Collection[str]) -> None:
        script = _RESTORE.format(
            folder=shlex.quote(folder),
            files=shlex.join(sorted(files)),
            added=shlex.join(sorted(added)),
        )
        self._dpkg(script, "Going back to the engine's packages from before failed")

    def packages(self) -> Mapping[str, str]:
        shown = self.guest.run(
            "dpkg-query",
            "--show",
            "--showformat=${db:Status-Status} ${Package} ${Version}\\n",
            sudo=True,
        )
        lines = [line.split() for line in shown.stdout.splitlines()]
        return {line[1]: line[2] for line in lines if line[0] == "installed"}

    def newer(self, versions: Mapping[str, str], than: Mapping[str, str]) -> set[str]:
        other = sorted(super().newer(versions, than))
        compare = ("dpkg", "--compare-versions")
        asked = self.guest.ask(*((*compare, versions[name], "gt", than[name]) for name in other))
        return {name for name, answer in zip(other, asked, strict=True) if answer.ok}

    def remove_packages(self, names: Collection[str]) -> None:
        """dpkg keeps what others depend on, and ends with a code then: that is no failure here."""
        if names:
            self.guest.script(
                _REMOVE.format(names=shlex.join(sorted(names))), sudo=True, timeout=600
            )

    def purge_packages(self, names: Collection[str]) -> None:
        """Only what is removed: what others depend on stays whole."""
        if names:
            self.guest.script(
                _PURGE.format(names=shlex.join(sorted(names))), sudo=True, timeout=600
            )

    def _dpkg(self, script: str, brief: str) -> None:
        try:
            self.guest.script(script, sudo=True, timeout=900)
        except CommandFailed as exc:
            raise CommandFailed(brief, code=exc.code, details=exc.details) from exc

    def is_cut_off(self) -> bool:
        """Only root may look while what dpkg did last is not in its list yet."""
        return bool(self.guest.run("dpkg", "--audit", sudo=True, check=False).stdout.strip())
