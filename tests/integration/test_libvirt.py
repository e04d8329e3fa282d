"""The libvirt driver against libvirt's own in-process hypervisor, `test:///default`."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import libvirt
import pytest

from machine.driver import HostRef
from machine.drivers.libvirt import connection, network
from machine.drivers.libvirt.config import LibvirtConfig, LibvirtFacts
from machine.drivers.libvirt.driver import Disk, DomainContext, LibvirtDriver
from machine.errors import BadOption, DriverError, PreflightError
from machine.model import State
from machine.render import render

URI = "test:///default"


@pytest.fixture
def conn() -> Iterator[Any]:
    """A fresh hypervisor each time: it lives as long as its connection."""
    yield connection.connect(URI)
    connection._open.pop(URI).close()


@pytest.fixture
def driver(conn: Any, tmp_path: Path) -> LibvirtDriver:
    host = HostRef("w1", str(uuid.uuid4()), tmp_path / "machines" / "w1")
    return LibvirtDriver(host, LibvirtConfig(), LibvirtFacts(uri=URI, mac="52:54:00:00:00:01"))


def context(driver: LibvirtDriver) -> DomainContext:
    return DomainContext(
        kind="test",
        name=driver.host.name,
        uuid=driver.host.id,
        store='a store with <&"',
        memory_mib=512,
        cpus=2,
        arch="x86_64",
        machine_type="q35",
        cpu_mode="maximum",
        kernel="/pool/kernel",
        initrd="/pool/initrd",
        cmdline="root=/dev/vda rw quiet",
        disks=(
            Disk("/pool/disk", "vda", "qcow2", readonly=False),
            Disk("/pool/seed", "vdb", serial="machine-identity"),
        ),
        mac="52:54:00:00:00:01",
        lan_mac="52:54:00:00:00:02",
        network="default",
        forwards="",
        console="/pool/console.log",
    )


def define(conn: Any, driver: LibvirtDriver) -> Any:
    """Checked against libvirt's own schema."""
    xml = render("libvirt/domain.xml.j2", context(driver)).replace('machine="q35"', "")
    return conn.defineXMLFlags(xml, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)


def test_the_domain_fits_libvirts_schema_and_carries_our_mark(
    conn: Any, driver: LibvirtDriver
) -> None:
    domain = define(conn, driver)
    assert domain.UUIDString() == driver.host.id
    mark = domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, "urn:machine-vm:1")
    assert driver.host.id in mark
    assert 'store="a store with &lt;&amp;&quot;"' in mark


def test_a_disk_that_boots_by_itself_has_its_boot_loader_on_the_console(
    conn: Any, driver: LibvirtDriver
) -> None:
    by_disk = replace(context(driver), kernel="", initrd="", cmdline="")
    xml = render("libvirt/domain.xml.j2", by_disk).replace('machine="q35"', "")
    domain = conn.defineXMLFlags(xml, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
    assert "<kernel>" not in domain.XMLDesc()
    assert "<bios useserial='yes'/>" in domain.XMLDesc()


def test_states_are_seen_in_one_survey(conn: Any, driver: LibvirtDriver) -> None:
    domain = define(conn, driver)
    assert driver.state() is State.STOPPED
    domain.create()
    assert LibvirtDriver.survey([driver])["w1"].state is State.RUNNING
    driver.pause()
    assert driver.state() is State.PAUSED
    driver.resume()
    driver.kill()
    driver.kill()
    assert LibvirtDriver.survey([driver])["w1"].state is State.STOPPED
    domain.undefine()
    assert LibvirtDriver.survey([driver])["w1"].state is State.MISSING


def test_a_provider_that_cannot_be_asked_is_told(tmp_path: Path) -> None:
    gone = LibvirtFacts(uri=f"qemu+unix:///system?socket={tmp_path}/nowhere")
    lost = LibvirtDriver(HostRef("w1", str(uuid.uuid4()), tmp_path), LibvirtConfig(), gone)
    sighting = LibvirtDriver.survey([lost])["w1"]
    assert sighting.state is State.UNKNOWN
    assert "libvirt does not answer" in sighting.problem


def test_a_foreign_domain_of_that_name_is_left_alone(conn: Any, driver: LibvirtDriver) -> None:
    define(conn, driver)
    other = LibvirtDriver(
        replace(driver.host, id=str(uuid.uuid4())), LibvirtConfig(uri=URI), LibvirtFacts()
    )
    with pytest.raises(PreflightError, match="another domain called"):
        other.preflight()
    other.remove()
    assert driver.state() is State.STOPPED


def test_addresses_that_cannot_be(conn: Any) -> None:
    net = conn.networkLookupByName("default")
    for wanted in ("8.8.8.8", "fd00::1", "192.168.122.1", "192.168.122.255", "x"):
        with pytest.raises(BadOption):
            network.check_address(net, wanted)
    network.check_address(net, "192.168.122.77")
    assert network.static(net, "192.168.122.77") == ("192.168.122.77/24", "192.168.122.1")


def test_a_network_and_a_pool_of_the_users_must_exist(conn: Any) -> None:
    with pytest.raises(DriverError, match='no network "nosuch"'):
        network.network(conn, "nosuch")


def test_the_same_id_gives_the_same_mac(driver: LibvirtDriver) -> None:
    assert driver._mac("nic") == driver._mac("nic") != driver._mac("lan")
    assert driver._mac("nic").startswith("52:54:00:")
