"""A host that OpenRC starts and whose sh, mv, tar and the like are busybox's: Alpine's stand-in.

Alpine's own packages are not to be had from a Debian mirror. This is Debian's OpenRC with Debian's
libc, and an os-release that calls itself Alpine; what is Alpine's alone (musl, apk, its own init
scripts) it does not show. Nor does it show what starts a computer, for no computer is started.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from machine.image_build import as_root, unpacked
from machine.paths import cache_root
from tests import artefact

NAME: Final = "openrc-debian-13.tar"
FOLDER: Final = "test-images"
USER: Final = "me"
PACKAGES: Final = (
    *("apparmor", "busybox-static", "ca-certificates", "iproute2", "iptables", "libseccomp2"),
    *("libsystemd0", "openrc", "openssh-server", "openssh-sftp-server", "procps", "sudo"),
    "sysvinit-core",
)
# First in the PATH of every login. Debian's boot scripts keep their own sh, for busybox's prefers
# its own start-stop-daemon, find and run-parts to Debian's.
OF_BUSYBOX: Final = (
    "cat chmod chown cmp cp cut env grep gzip head id install ln ls mkdir mv readlink rm rmdir "
    "sed sh sha256sum sort stat tail tar test touch tr uname xargs"
)
FINISH: Final = f"""
set -eu
cd "$1"
rm etc/os-release
printf 'ID=alpine\\nVERSION_ID=3.0\\nPRETTY_NAME="Stand-in for Alpine"\\n' > etc/os-release
cat > etc/init.d/network <<'END'
#!/sbin/openrc-run
depend() {{ provide net; }}
END
chmod 755 etc/init.d/network
ln -s /etc/init.d/network etc/runlevels/default/network
cd etc/runlevels/sysinit  # only what does not look for disks
for name in *; do
    case $name in bootmisc.sh | hostname.sh | procps) ;; *) rm "$name" ;; esac
done
cd "$1"
echo 'HostKey /etc/ssh/ssh_host_ed25519_key' > etc/ssh/sshd_config.d/10-machine.conf
rm -f etc/ssh/ssh_host_* etc/hostname
chroot . useradd --create-home --shell /usr/local/bin/sh --groups sudo {USER}
for name in {OF_BUSYBOX}; do ln -s /usr/bin/busybox usr/local/bin/$name; done
sed -i '/getty/d' etc/inittab
"""


def build(target: Path) -> None:
    """Make the tree's archive, or leave the one that is there. Raises ImageError."""

    def make(work: Path) -> Path:
        artefact.bootstrap(work / "root.tar", PACKAGES, *artefact.BARE)
        with unpacked(work / "root.tar") as root:
            as_root("sh", "-c", FINISH, "sh", root)
            as_root("tar", "-C", root, "-cf", work / NAME, ".")
        return work / NAME

    artefact.build(target, make)


if __name__ == "__main__":
    build(Path(sys.argv[1]) if sys.argv[1:] else cache_root() / FOLDER / NAME)
