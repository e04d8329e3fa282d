"""Docker from upstream's static archive: a folder for each release, and a link to the one in use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from machine.engine import Archive
from machine.errors import CommandFailed, EngineError

if TYPE_CHECKING:
    from machine.guest import Guest
    from machine.provisioner import Provisioner

ARCHIVE: Final = Archive(
    file="docker-{version}.tgz",
    url="https://download.docker.com/linux/static/stable/{arch}",
    programs=tuple(
        f"docker/{name}"
        for name in (
            "containerd",
            "containerd-shim-runc-v2",
            "ctr",
            "docker",
            "docker-init",
            "docker-proxy",
            "dockerd",
            "runc",
        )
    ),
)
"""docs.docker.com/engine/install/binaries names the place. No list of digests is published there
(docker/roadmap#188)."""
HOME: Final = "/usr/local/libexec/machine/docker"
"""Below libexec, so that SELinux takes them for programs (bin_t), as it would not below lib."""
CURRENT: Final = f"{HOME}/current"
UNITS: Final = "/usr/local/lib/systemd/system"
"""Where the provisioners put them (``machine/provisioners/systemd.py``)."""
LINKS: Final = ("/usr/local/bin/docker", "/usr/local/bin/dockerd")
DEFINITIONS: Final = Path(__file__).parent / "services"
PATH: Final = f"{HOME}/current:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where dockerd looks for containerd, runc, docker-proxy and docker-init; also in its unit."""

# A release becomes visible by one rename, and is in use by one more: whoever is killed in between
# leaves the release from before, or none. Only the programs that were checked are unpacked.
_UNPACK: Final = """
umask 022
set -- {folder}/*
release=${{1##*/docker-}}
release=${{release%.tgz}}
rm -rf {home}/.new
mkdir -p {home}/.new
tar -xzof "$1" -C {home}/.new {programs}
chmod 755 {home}/.new/docker/*
echo "$release"
"""
_TRY: Final = """
for program in dockerd containerd runc docker; do
    {home}/.new/docker/$program --version >/dev/null
done
"""
_USE: Final = """
umask 022
rm -rf {home}/.old
[ ! -e {home}/{release} ] || mv {home}/{release} {home}/.old
mv {home}/.new/docker {home}/{release}
rm -rf {home}/.old {home}/.new
ln -sfn {release} {home}/.current
mv -fT {home}/.current {home}/current
mkdir -p /usr/local/bin
for program in docker dockerd; do
    ln -sfn {home}/current/$program /usr/local/bin/.$program
    mv -fT /usr/local/bin/.$program /usr/local/bin/$program
done
"""
# Programs that run from a folder which is removed go on: the engine was restarted by then.
_TIDY: Final = """
cd {home} 2>/dev/null || exit 0
keep=$(readlink current || true)
for each in * .new .old .current; do
    case $each in current|"$keep") ;; *) rm -rf "$each" ;; esac
done
"""


def install(guest: Guest, provisioner: Provisioner, folder: str) -> None:
    """From the archive that is the only file of ``folder``. There is no service for containerd:
    dockerd runs the one beside it, which starts, stops and changes its release with it."""
    programs = " ".join(ARCHIVE.programs)
    release = guest.script(
        _UNPACK.format(folder=folder, home=HOME, programs=programs), sudo=True, timeout=600
    ).stdout.strip()
    try:
        guest.script(_TRY.format(home=HOME), sudo=True, timeout=120)
    except CommandFailed as exc:
        guest.run("rm", "-rf", f"{HOME}/.new", sudo=True)
        raise EngineError(
            "The programs of the bundle do not run on this system",
            details=exc.details,
            hint="Were they linked statically, and for this kind of computer?",
        ) from exc
    provisioner.ensure_group("docker")
    provisioner.install_service(DEFINITIONS)
    guest.script(_USE.format(home=HOME, release=release), sudo=True)


def step_aside(guest: Guest, provisioner: Provisioner) -> None:
    """Take away what is put before packages of the same names. The releases stay."""
    files = provisioner.service_files(DEFINITIONS)
    guest.run("rm", "-f", *LINKS, CURRENT, *files, sudo=True)
    provisioner.reload_services()


def tidy(guest: Guest, *, in_use: bool) -> None:
    """Leave the release in use, or nothing."""
    if in_use:
        guest.script(_TIDY.format(home=HOME), sudo=True)
    else:
        guest.run("rm", "-rf", HOME, sudo=True)


def is_installed(guest: Guest, dockerd: str) -> bool:
    """Whether the dockerd at this path is one of ours."""
    return guest.run("readlink", "-f", dockerd, check=False).stdout.startswith(f"{HOME}/")
