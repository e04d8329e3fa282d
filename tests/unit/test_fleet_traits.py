"""What a change in a fleet's file comes to: in place, another host, or nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from machine import fleet as fleets
from machine.store import Store
from machine.workflows import create
from machine.workflows.fleet import request, traits


def differing(tmp_path: Path, before: str, after: str) -> tuple[set[str], set[str]]:
    """The keys for which another host is needed, and those that are changed in place."""
    found = []
    for text in (before, after):
        path = tmp_path / "machines.toml"
        path.write_text(f'name = "lab"\n[machines.m1]\n{text}')
        fleet = fleets.read(path)
        host = create.planned(Store(tmp_path / "store"), request(fleet, fleet.machines[0]))
        found.append(traits(host))
    (fixed, loose), (new_fixed, new_loose) = found
    return (
        {key for key in {**fixed, **new_fixed} if fixed.get(key) != new_fixed.get(key)},
        {key for key in {**loose, **new_loose} if loose.get(key) != new_loose.get(key)},
    )


LIBVIRT = 'driver = "libvirt"\n'
GENERIC = 'driver = "generic"\n[machines.m1.generic]\nip_address = "203.0.113.7"\n'
CLOUD = 'driver = "digitalocean"\n[machines.m1.digitalocean]\naccess_token = "env:A"\n'


@pytest.mark.parametrize(
    ("before", "after", "fixed", "loose"),
    [
        (LIBVIRT, LIBVIRT, set(), set()),
        (LIBVIRT, LIBVIRT + "memory_mib = 2048\n", {"memory_mib"}, set()),
        (LIBVIRT, LIBVIRT + "[machines.m1.libvirt]\nmemory = 2048\n", {"memory_mib"}, set()),
        (
            LIBVIRT + "memory_mib = 2048\n",
            LIBVIRT + "[machines.m1.libvirt]\nmemory = 2048\n",
            set(),
            set(),
        ),
        (LIBVIRT, LIBVIRT + '[machines.m1.libvirt]\nnetwork = "b"\n', {"libvirt.network"}, set()),
        (
            LIBVIRT,
            LIBVIRT + "[machines.m1.libvirt]\nboot_timeout = 900\n",
            set(),
            {"libvirt.boot_timeout"},
        ),
        (LIBVIRT, LIBVIRT + 'template = "debian-13"\n', set(), {"template"}),
        (LIBVIRT, LIBVIRT + 'template = "debian-12"\n', {"image"}, {"template"}),
        (LIBVIRT, LIBVIRT + 'labels = { a = "b" }\n', set(), {"labels"}),
        (LIBVIRT, LIBVIRT + "context = true\n", set(), {"context"}),
        (LIBVIRT, LIBVIRT + "warm = true\nlayers = false\n", set(), set()),
        (GENERIC, 'memory_mib = 2048\ntemplate = "debian-12"\n' + GENERIC, set(), set()),
        (GENERIC, GENERIC.replace("7", "8"), {"generic.ip_address"}, set()),
        (GENERIC, GENERIC + 'sudo_password = "env:X"\n', set(), {"generic.sudo_password"}),
        (GENERIC, 'setup = "adopt"\n' + GENERIC, {"setup"}, set()),
        (CLOUD, CLOUD + 'size = "s-2vcpu-4gb"\n', {"digitalocean.size"}, set()),
        (CLOUD, CLOUD.replace("env:A", "env:B"), set(), {"digitalocean.access_token"}),
    ],
)
def test_changes(tmp_path: Path, before: str, after: str, fixed: set[str], loose: set[str]) -> None:
    assert differing(tmp_path, before, after) == (fixed, loose)


def test_sizes_in_a_drivers_own_units(tmp_path: Path) -> None:
    box = 'driver = "virtualbox"\n'
    own = "[machines.m1.virtualbox]\nmemory = 2048\ncpu_count = 3\ndisk_size = 40960\n"
    assert differing(tmp_path, box, box + own) == ({"memory_mib", "cpus", "disk_gib"}, set())
    same = "memory_mib = 2048\ncpus = 3\ndisk_gib = 40\n"
    assert differing(tmp_path, box + same, box + own) == (set(), set())
