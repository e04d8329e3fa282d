"""A guest that OpenRC starts and whose sh, mv, tar and the like are busybox's: Alpine's stand-in.

Alpine's own packages are not to be had from a Debian mirror. This is Debian's OpenRC with Debian's
kernel and libc, and an os-release that calls itself Alpine; what is Alpine's alone (musl, apk, its
own init scripts) it does not show.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from machine.image_build import KERNELS, as_root, initramfs, make_disk, unpacked
from machine.paths import cache_root
from tests import artefact

NAME: Final = "openrc"
FOLDER: Final = "test-images"
TREE: Final = "tree.tar"
"""Its file system without what only a boot needs, for tests that nothing boots."""
USER: Final = "me"
PACKAGES: Final = (
    *("apparmor", "busybox-static", "ca-certificates", "e2fsprogs", "iproute2"),
    *("iptables", "kmod", "libseccomp2", "libsystemd0", "openrc", "openssh-server"),
    *("openssh-sftp-server", "procps", "sudo", "sysvinit-core", "udev"),
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
echo 'LABEL=root / ext4 rw 0 1' > etc/fstab
cat > etc/init.d/network <<'END'
#!/sbin/openrc-run
depend() {{ provide net; }}
start() {{
    ip link set lo up
    ip address add 10.0.2.15/24 dev eth0
    ip link set eth0 up
    ip route add default via 10.0.2.2
}}
END
chmod 755 etc/init.d/network
ln -s /etc/init.d/network etc/runlevels/default/network
echo 'HostKey /etc/ssh/ssh_host_ed25519_key' > etc/ssh/sshd_config.d/10-machine.conf
rm -f etc/ssh/ssh_host_* etc/hostname
chroot . useradd --create-home --shell /usr/local/bin/sh --groups sudo {USER}
for name in {OF_BUSYBOX}; do ln -s /usr/bin/busybox usr/local/bin/$name; done
sed -i '/getty/d' etc/inittab
"""
CMDLINE: Final = "root=/dev/vda rw console=ttyS0 net.ifnames=0 quiet"


def build(target: Path) -> None:
    """``disk.qcow2``, ``vmlinuz``, ``initrd`` and the tree in the folder, unless it is there."""

    def make(work: Path) -> Path:
        archive, made = work / "root.tar", work / "made"
        made.mkdir()
        kernel_package = KERNELS[os.uname().machine]
        artefact.bootstrap(archive, (*PACKAGES, kernel_package), *artefact.BARE)
        with unpacked(archive) as root:
            as_root("sh", "-c", FINISH, "sh", root)
            (kernel,) = (root / "boot").glob("vmlinuz-*")
            (made / "vmlinuz").write_bytes(kernel.read_bytes())
            version = kernel.name.removeprefix("vmlinuz-")
            (made / "initrd").write_bytes(initramfs(root / "usr" / "lib" / "modules" / version))
            make_disk(root, made / "disk.qcow2")
            without = ("--exclude=./boot", "--exclude=./usr/lib/modules")
            as_root("tar", "-C", root, *without, "-cf", made / TREE, ".")
        return made

    artefact.build(target, make)


if __name__ == "__main__":
    build(Path(sys.argv[1]) if sys.argv[1:] else cache_root() / FOLDER / NAME)
