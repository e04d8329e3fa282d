"""A bundle's way onto a guest: by an attached disk or over SFTP, its digests checked there."""

from __future__ import annotations

import shlex
from typing import Final

from machine.errors import BundleError
from machine.events import Reporter
from machine.guest import Guest
from machine.runtime.bundle.lock import Bundle

LABEL: Final = "machine-bundle"
"""The serial of the disk that a driver attaches a bundle as."""
FOLDER: Final = "/var/lib/machine/bundle"

# Only the lock's own files are unpacked: what else a disk may hold would not be compared.
_UNPACK: Final = """
rm -rf {folder}
mkdir -p {folder}
tar -xof {source} -C {folder} {names}
cd {folder}
sha256sum -c <<'SUMS'
{sums}SUMS
"""


def deliver(guest: Guest, bundle: Bundle, report: Reporter) -> str:
    """Unpack the bundle on the guest, from the attached disk if there is one and over SFTP if not,
    and check every file there against the digests known here. Answers the folder. Twice is fine.
    Raises BundleError when the files are not the lock's."""
    device = f"/dev/disk/by-id/virtio-{LABEL}"
    if guest.run("test", "-b", device, check=False).ok:
        if not _unpack(guest, bundle, device):
            return FOLDER
        report.warn("The attached bundle does not match its lock; sending it over SSH instead")
    guest.put(
        bundle.path,
        f"{FOLDER}.tar",
        mode=0o600,
        progress=lambda done, total: report.progress("install", done, total),
        timeout=3600,
    )
    if problem := _unpack(guest, bundle, f"{FOLDER}.tar"):
        raise BundleError(
            f"The bundle {bundle.name} arrived damaged on the host",
            details=problem,
            hint=f"machine bundle verify {bundle.name}; df on the host shows its free space",
        )
    return FOLDER


def discard(guest: Guest) -> None:
    """Remove what ``deliver`` left on the guest."""
    guest.run("rm", "-rf", FOLDER, f"{FOLDER}.tar", sudo=True)


def _unpack(guest: Guest, bundle: Bundle, source: str) -> str:
    """What is wrong with it, or nothing."""
    script = _UNPACK.format(
        folder=FOLDER,
        source=source,
        names=shlex.join(name for name, _ in bundle.files),
        sums="".join(f"{digest}  {name}\n" for name, digest in bundle.files),
    )
    done = guest.script(script, sudo=True, timeout=600, check=False)
    if done.ok:
        return ""
    wrong = [line for line in done.stdout.splitlines() if not line.endswith(": OK")]
    return "\n".join([*wrong, done.stderr.strip()])
