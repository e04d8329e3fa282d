"""Guest images made from a distribution's own packages: no image server is needed."""

from __future__ import annotations

import hashlib
import lzma
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from machine import command
from machine.errors import ImageError, PreflightError
from machine.events import Reporter
from machine.paths import shipped_templates

DEBIAN_MIRROR: Final = "http://deb.debian.org/debian"
"""Used where this computer's own apt does not know a Debian mirror."""
SUITES: Final = {"12": "bookworm", "13": "trixie"}
KERNELS: Final = {"x86_64": "linux-image-cloud-amd64", "aarch64": "linux-image-cloud-arm64"}
PACKAGES: Final = (
    "apparmor",
    "ca-certificates",
    "dbus",
    "e2fsprogs",
    "iproute2",
    "iptables",
    "kmod",
    "less",
    "openssh-server",
    "openssh-sftp-server",
    "procps",
    "sudo",
    "systemd-resolved",
    "systemd-sysv",
    "systemd-timesyncd",
    "udev",
)
MODULES: Final = {
    "virtio": ("virtio_pci", "virtio_blk", "ext4"),
    "others": ("sd_mod", "sr_mod", "isofs", "ahci", "ata_piix", "virtio_scsi"),
}
"""What reaches the root disk: loaded always, and only where it is on no virtio disk."""
_SHIPPED: Final = shipped_templates() / "_images" / "debian"
_AS_ROOT: Final = ("unshare", "--map-root-user", "--map-auto", "--")
ROOT_MIB: Final = 3072
"""The file system's size in the image; a machine's own disk is larger, and it grows at boot."""
PROGRAMS: Final = {
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "qemu-img": "qemu-utils",
    "busybox": "busybox-static",
    "zstd": "zstd",
}


def build_debian(release: str, work: Path, report: Reporter) -> str:
    """Make ``disk.qcow2``, ``vmlinuz``, ``initrd`` and ``tree.tar.zst`` in ``work``; answers the
    kernel's command line. As root, or as a user with subordinate ids (unshare). Raises
    PreflightError for what is missing, ImageError when a program fails."""
    suite, arch = SUITES[release], os.uname().machine
    check(arch)
    mirror = apt_mirror()
    archive = work / "root.tar"
    packages = ",".join((*PACKAGES, KERNELS[arch]))
    with report.step("packages", f"Getting the packages of Debian {release}"):
        call(
            "mmdebstrap",
            f"--mode={'root' if os.geteuid() == 0 else 'unshare'}",
            "--variant=minbase",
            f"--include={packages}",
            "--aptopt=APT::Install-Recommends false",
            "--dpkgopt=path-exclude=/usr/share/doc/*",
            "--dpkgopt=path-include=/usr/share/doc/*/copyright",
            "--dpkgopt=path-exclude=/usr/share/man/*",
            "--dpkgopt=path-exclude=/usr/share/locale/*",
            suite,
            archive,
            *(f"deb {mirror} {name} main" for name in (suite, f"{suite}-updates")),
        )
    with report.step("disk", "Making the disk"), unpacked(archive) as root:
        archive.unlink()
        as_root("sh", _SHIPPED / "finish.sh", root)
        seal(root)
        kernel = next(iter(sorted((root / "boot").glob("vmlinuz-*"), reverse=True)))
        (work / "vmlinuz").write_bytes(kernel.read_bytes())
        version = kernel.name.removeprefix("vmlinuz-")
        (work / "initrd").write_bytes(initramfs(root / "usr" / "lib" / "modules" / version))
        make_disk(root, work / "disk.qcow2")
        as_root("tar", "-C", root, "-I", "zstd -T0", "-cf", work / "tree.tar.zst", ".")
    return "root=/dev/vda rw console=ttyS0 net.ifnames=0 quiet"


def recipe() -> str:
    """What a built image owes to this version of ours, besides its packages: layers rest on it."""
    modules = (name for names in MODULES.values() for name in names)
    digest = hashlib.sha256(" ".join((*PACKAGES, *modules)).encode())
    for script in ("finish.sh", "seal.sh", "init.sh"):
        digest.update((_SHIPPED / script).read_bytes())
    return digest.hexdigest()[:16]


def seal(root: Path) -> None:
    """Take out of an unpacked system what no two guests may share: keys, ids, logs. Twice is fine."""
    as_root("sh", _SHIPPED / "seal.sh", root)


def make_disk(root: Path, disk: Path) -> None:
    """A qcow2 that is one ext4 file system with the content of a folder."""
    raw = disk.with_suffix(".raw")
    as_root("mke2fs", "-q", "-t", "ext4", "-L", "root", "-m", "1", "-d", root, raw, f"{ROOT_MIB}M")
    call("qemu-img", "convert", "-O", "qcow2", raw, disk)
    raw.unlink()


def check(arch: str) -> None:
    """Raises PreflightError unless an image can be built here."""
    if missing := command.missing(PROGRAMS):
        raise PreflightError(
            f"Building an image needs programs that are not installed: {', '.join(missing)}",
            hint=f"sudo apt-get install {' '.join(missing)}",
        )
    if arch not in KERNELS:
        raise PreflightError(f"Images cannot be built for {arch}; only for {', '.join(KERNELS)}")
    if os.geteuid() != 0 and not command.which("newuidmap"):
        raise PreflightError(
            "Building an image as an ordinary user needs newuidmap and subordinate ids",
            hint="sudo apt-get install uidmap",
        )
    if os.geteuid() != 0:
        tried = command.run(*_AS_ROOT, "true", check=False)
        if not tried.ok:
            raise PreflightError(
                "Building an image as an ordinary user needs subordinate ids, and there are none",
                details=tried.stderr.strip(),
                hint="sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER",
            )


def apt_mirror() -> str:
    """The Debian mirror that this computer's own apt uses, or Debian's own."""
    if not command.which("apt-get"):
        return DEBIAN_MIRROR
    listed = command.run(
        "apt-get", "indextargets", "--format", "$(SITE) $(RELEASE) $(COMPONENT)", check=False
    )
    suites = set(SUITES.values())
    for line in listed.stdout.splitlines():
        site, suite, component = (*line.split(), "", "", "")[:3]
        if component == "main" and suite in suites and "security" not in site:
            return site.rstrip("/")
    return DEBIAN_MIRROR


def initramfs(modules: Path) -> bytes:
    """busybox, the modules that reach the root disk, and init.sh, as an uncompressed cpio."""
    busybox = command.which("busybox")
    assert busybox  # check() was called
    files = {
        "bin/busybox": Path(busybox).read_bytes(),
        "init": (_SHIPPED / "init.sh").read_bytes(),
    }
    for group, wanted in MODULES.items():
        order = []
        for path in module_files(modules, wanted):
            name = path.name.removesuffix(".xz")
            if f"modules/{name}" in files:
                continue  # an earlier group has loaded it
            content = path.read_bytes()
            files[f"modules/{name}"] = lzma.decompress(content) if path.suffix == ".xz" else content
            order.append(name)
        files[f"modules/{group}"] = "\n".join(order).encode()
    folders = ("bin", "dev", "modules", "proc", "sys")
    return cpio([(name, None) for name in folders] + sorted(files.items()))


def module_files(modules: Path, names: Iterable[str]) -> Iterator[Path]:
    """Module files in the order of loading, dependencies first; what is built in is left out.
    modules.dep(5): each line is a file, then what it needs, the last of which loads first."""
    needs: dict[str, list[str]] = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        name, _, rest = line.partition(":")
        needs[name] = rest.split()
    by_name = {Path(file).name.split(".")[0].replace("-", "_"): file for file in needs}
    seen: set[str] = set()
    for name in names:
        file = by_name.get(name)
        for each in [*reversed(needs[file]), file] if file else []:
            if each not in seen:
                seen.add(each)
                yield modules / each


def cpio(entries: Iterable[tuple[str, bytes | None]]) -> bytes:
    """The "newc" format of cpio(5), which the kernel unpacks; None is a folder."""
    out = bytearray()
    for number, (name, content) in enumerate([*entries, ("TRAILER!!!", b"")], start=1):
        mode = stat.S_IFDIR | 0o755 if content is None else stat.S_IFREG | 0o755
        body = content or b""
        fields = (number, mode, 0, 0, 1, 0, len(body), 0, 0, 0, 0, len(name) + 1, 0)
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        out += bytes(-len(out) % 4) + body
        out += bytes(-len(out) % 4)
    return bytes(out)


@contextmanager
def unpacked(archive: Path, work: Path | None = None) -> Iterator[Path]:
    """The file system of a tar archive, with its owners, in a folder ``root`` of ``work`` (or else
    beside it) that is gone afterwards. Device nodes are left out: an ordinary user cannot make
    them, and the kernel makes its own at every boot (devtmpfs). Raises ImageError."""
    root = (work or archive.parent) / "root"
    root.mkdir()
    try:
        as_root("tar", "-C", root, "--exclude=./dev/*", "-xpf", archive)
        yield root
    finally:
        as_root("rm", "-rf", root)  # its files may belong to subordinate ids


def as_root(*argv: str | Path) -> None:
    """As root, or as the root of a user namespace in which the user's subordinate ids are mapped."""
    call(*(() if os.geteuid() == 0 else _AS_ROOT), *argv)


def call(*argv: str | Path) -> None:
    result = command.run(*argv, check=False, timeout=1800)
    if not result.ok:
        raise ImageError(
            f"Building the image failed: {argv[0]} ended with code {result.code}",
            details="\n".join(result.stderr.strip().splitlines()[-8:]),
            hint="Is the package mirror reachable? apt-get update shows it."
            if argv[0] == "mmdebstrap"
            else "",
        )
