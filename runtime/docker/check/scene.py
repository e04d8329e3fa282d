"""What a check makes on a host, and its removal: a network, two containers, an image of one file.

The programs in the containers are the host's own, mounted read-only: nothing is downloaded, and
nothing but that file is sent there.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from machine import wait
from machine.errors import EngineError
from machine.guest import Guest
from machine.runtime.docker.check import layers, limits

if TYPE_CHECKING:
    from docker import APIClient
    from docker.types import Mount

LABEL: Final = "machine.check"
"""On everything that a check makes; whatever has it is removed before the next one and after it."""
NAME: Final = "machine-check"
PEER: Final = "machine-check-peer"
IMAGE: Final = "localhost:1/machine-check"
"""A Swarm's node tries to pull an image whose name has no digest. At this address nobody answers, and
it takes the image that it has."""
PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

FOLDERS: Final = """
for folder in /bin /sbin /lib /lib32 /lib64 /libx32 /usr; do
    if [ -d "$folder" ]; then echo "$folder"; fi
done
"""
READY: Final = """
tries=0
while [ ! -e "/proc/$pid/root/ready" ] && [ $tries -lt 600 ]; do
    sleep 0.1
    tries=$((tries + 1))
done
[ -e "/proc/$pid/root/ready" ]
"""
READER: Final = f"""
echo '{layers.AFTER}' >/{layers.IN_IMAGE}
echo 'written in the container' >/{layers.WRITTEN}
mkfifo /tasks
: >/ready
exec 3<>/tasks
while read -r task <&3; do eval "$task"; done
"""
"""What a container does: it writes, and then runs what root on the host puts into its pipe."""


@dataclass(frozen=True, slots=True)
class Scene:
    client: APIClient
    mounts: Sequence[Mount]
    subject: dict[str, Any]  # as the engine inspects them
    peer: dict[str, Any]
    subnet: str
    warnings: Sequence[str]


def build(guest: Guest, client: APIClient) -> Scene:
    """Raises EngineError, GuestError."""
    from docker.types import Mount

    mounts = [
        Mount(folder, folder, type="bind", read_only=True)
        for folder in guest.script(FOLDERS).stdout.split()
    ]
    client.import_image_from_data(_image(), repository=IMAGE, changes=[f"LABEL {LABEL}="])
    client.create_network(NAME, driver="bridge", labels={LABEL: ""})
    subject, warnings = _container(client, NAME, mounts, limited=True)
    peer, _ = _container(client, PEER, mounts, limited=False)
    for each in (subject, peer):
        wait_for_reader(guest, each["State"]["Pid"])
    pools = client.inspect_network(NAME)["IPAM"]["Config"]
    subnet = next(each["Subnet"] for each in pools if "." in each["Subnet"])  # there may be IPv6
    return Scene(client, mounts, subject, peer, subnet, warnings)


def limit_processor(made: Scene) -> Sequence[str]:
    """The engine's warnings. Only now: starting takes time of a processor, too. A quota and a period,
    and no number of processors: that is refused where it cannot be had, and of these is warned."""
    changed = made.client.update_container(
        made.subject["Id"], cpu_period=limits.PERIOD_US, cpu_quota=limits.QUOTA_US
    )
    return changed.get("Warnings") or []


def wait_for_reader(guest: Guest, pid: int) -> None:
    """Raises EngineError when the container's first process did not begin."""
    if not ask(guest, pid, READY, check=False):
        raise EngineError(
            "A container of the check did not begin its work",
            details=f"Its first process was {pid} on the host.",
            hint="sudo journalctl -u docker on the host may say more",
        )


def ask(guest: Guest, pid: int, script: str, *, check: bool = True) -> str:
    """What a script about a container says; "" when it fails and ``check`` is off."""
    result = guest.script(f"pid={pid}\n{script}", sudo=True, timeout=300, check=check)
    return (result.stdout or "\n") if result.ok else ""


def clear(client: APIClient) -> None:
    """Remove whatever a check made, on this host or in its Swarm. Twice is fine."""
    ours = {"label": LABEL}
    services: Any = client  # types-docker has no types for what concerns them
    if client.info()["Swarm"].get("ControlAvailable"):
        for service in services.services(filters=ours):
            services.remove_service(service["ID"])
    wait.until("the check's containers to go", lambda: _emptied(client), timeout=120, most=2)
    for network in client.networks(filters=ours):
        client.remove_network(network["Id"])
    for image in client.images(filters=ours):
        client.remove_image(image["Id"], force=True)


def _emptied(client: APIClient) -> bool:
    """Containers of a service that was removed go by themselves, later."""
    found = client.containers(all=True, filters={"label": LABEL})
    for each in found:
        _remove_container(client, each["Id"])
    return not found


def _remove_container(client: APIClient, ident: str) -> None:
    from docker.errors import APIError, NotFound

    try:
        client.remove_container(ident, force=True, v=True)
    except NotFound:
        return
    except APIError as exc:
        if exc.status_code != 409:  # its removal is going on
            raise


def _container(
    client: APIClient, name: str, mounts: Sequence[Mount], *, limited: bool
) -> tuple[dict[str, Any], Sequence[str]]:
    """A started one, and the engine's warnings."""
    memory = limits.MEMORY_MIB * limits.MIB if limited else None
    made = client.create_container(
        IMAGE,
        ["/bin/sh", "-c", READER],
        name=name,
        hostname=name,
        environment={"PATH": PATH},
        labels={LABEL: ""},
        host_config=client.create_host_config(
            mounts=list(mounts),
            network_mode=NAME,
            security_opt=["label=disable"],  # SELinux's: the host's programs are not labelled
            mem_limit=memory,
            memswap_limit=memory,  # of memory and swap together: no swap
        ),
    )
    client.start(made["Id"])
    return client.inspect_container(made["Id"]), made.get("Warnings") or []


def _image() -> bytes:
    """A file system of one file."""
    content = f"{layers.BEFORE}\n".encode()
    member = tarfile.TarInfo(layers.IN_IMAGE)
    member.size = len(content)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
