"""The libvirt driver against libvirt's own in-process hypervisor, `test:///default`."""

from __future__ import annotations

import gc
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import libvirt
import pytest

from machine.driver import Finding, HostRef
from machine.drivers.libvirt import (
    connection,
    findings,
    memory,
    network,
    preflight,
    storage,
)
from machine.drivers.libvirt.config import LibvirtConfig, LibvirtFacts
from machine.drivers.libvirt.domain import Disk, DomainContext
from machine.drivers.libvirt.driver import LibvirtDriver
from machine.errors import BadOption, DriverError, MachineError, PreflightError, WarmRefused
from machine.model import FirstBoot, Identity, Image, Size, State, Usage, VmSpec
from machine.render import render

URI = "test:///default"


@pytest.fixture
def conn() -> Iterator[Any]:
    """A fresh hypervisor each time: it lives as long as its connection, which an error that was
    expected holds by its traceback."""
    gc.collect()
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
        network="default",
        mac="52:54:00:00:00:01",
        forwards="",
        forward_mac="52:54:00:00:00:02",
        lan_mac="",
        console="/pool/console.log",
        genid=True,
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


def test_what_is_in_use_is_as_much_as_libvirt_tells(conn: Any, driver: LibvirtDriver) -> None:
    """This hypervisor tells nothing; one that is not there costs nothing either."""
    define(conn, driver).create()
    lost = LibvirtDriver(
        HostRef("w2", str(uuid.uuid4()), driver.host.folder),
        LibvirtConfig(),
        LibvirtFacts(uri="qemu+unix:///system?socket=/nowhere"),
    )
    told = LibvirtDriver.usage([driver, lost])
    assert set(told.values()) <= {Usage()}
    assert "w2" not in told


def test_its_size_is_another_one_once_it_is_off(conn: Any, driver: LibvirtDriver) -> None:
    """A disk is no affair of this hypervisor's: it cannot change its volumes."""
    define(conn, driver)
    for cpus, memory_mib in ((4, 2048), (4, 2048), (1, 256)):
        options = driver.resize(Size(cpus, memory_mib))
        assert options == {"cpus": cpus, "memory": memory_mib}
        domain = conn.lookupByName(driver.host.name)
        assert domain.info()[1:4] == [memory_mib << 10, memory_mib << 10, cpus]
        assert f"<vcpu placement='static'>{cpus}</vcpu>" in domain.XMLDesc()
    assert driver.resize(Size(cpus=3)) == {"cpus": 3}
    driver.start()
    assert driver.state() is State.RUNNING


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


def test_the_same_id_gives_the_same_mac() -> None:
    assert network.mac("id", "nic") == network.mac("id", "nic") != network.mac("id", "lan")
    assert network.mac("id", "nic") != network.mac("other", "nic")
    assert network.mac("id", "nic").startswith("52:54:00:")


def test_a_vm_that_no_record_knows_is_named(conn: Any, driver: LibvirtDriver) -> None:
    """One of another store is never removed."""
    define(conn, driver).create()

    def told(ids: frozenset[str]) -> list[Finding]:
        return list(findings.orphaned_domains(conn, Path("/another/store"), ids, fix=True))

    assert told(frozenset({driver.host.id})) == []
    (named,) = told(frozenset())
    assert (named.level, named.fixed) == ("warning", False)
    assert "undefine w1" in named.remedy
    assert driver.state() is State.RUNNING


@pytest.mark.parametrize(
    ("config", "error", "words"),
    [
        ({"pool": "nosuch"}, PreflightError, 'no storage pool "nosuch"'),
        ({"network": "nosuch"}, PreflightError, 'no network "nosuch"'),
        ({"network": "default", "ip": "8.8.8.8"}, BadOption, "no host address"),
    ],
)
def test_what_is_missing_is_told_before_anything_is_made(
    conn: Any, config: dict[str, str], error: type[MachineError], words: str
) -> None:
    wanted = LibvirtConfig(**config)  # type: ignore[arg-type]
    with pytest.raises(error, match=words):
        preflight.pool(conn, wanted.pool, local_session=False)
        preflight.addresses(conn, wanted)


def test_session_disks_need_a_folder_that_can_be_written(
    conn: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/proc/1")
    with pytest.raises(PreflightError, match="cannot be written") as caught:
        preflight.pool(conn, "machine", local_session=True)
    assert "XDG_DATA_HOME" in caught.value.hint


@pytest.mark.parametrize(
    ("uri", "host"),
    [
        ("qemu:///system", ""),
        ("qemu+unix:///system?socket=/x", ""),
        ("qemu+ssh://me@127.0.0.1:22/system", "127.0.0.1"),
        ("qemu+tls://big.example.org/system", "big.example.org"),
        ("test:///default", ""),
    ],
)
def test_which_computer_a_uri_leads_to(uri: str, host: str) -> None:
    assert connection.remote_host(uri) == host


def test_a_remote_hypervisor_that_does_not_answer_has_its_own_remedy() -> None:
    with pytest.raises(PreflightError) as caught:
        connection.connect("qemu+ssh://me@127.0.0.1:1/system")
    assert "ssh me@127.0.0.1 virsh" in caught.value.hint


def test_memory_is_not_known_where_libvirt_does_not_say(driver: LibvirtDriver) -> None:
    assert driver.memory_available() is None


def test_one_question_tells_the_states_of_all(driver: LibvirtDriver, conn: Any) -> None:
    there = conn.lookupByName("test")
    other = LibvirtDriver(
        HostRef("test", there.UUIDString(), driver.host.folder), driver.config, driver.facts
    )
    seen = LibvirtDriver.survey([driver, other])
    assert (seen["w1"].state, seen["test"].state) == (State.MISSING, State.RUNNING)
    assert seen["test"] == other._sight(conn)
    there.suspend()
    assert LibvirtDriver.survey([other])["test"].state is State.PAUSED


@pytest.fixture
def pool(conn: Any, driver: LibvirtDriver) -> Any:
    """Three disks, each but the last laid over the next; a domain has the first."""
    xml = "<pool type='dir'><name>machine</name><target><path>/pool</path></target></pool>"
    made = conn.storagePoolDefineXML(xml)
    made.create()
    for name, backing in (("base", ""), ("warm", "/pool/base"), ("disk", "/pool/warm")):
        store = f"<backingStore><path>{backing}</path></backingStore>" if backing else ""
        made.createXML(f"<volume><name>{name}</name><capacity>1024</capacity>{store}</volume>")
    for name in ("seed", "kernel", "initrd"):
        made.createXML(f"<volume><name>{name}</name><capacity>1024</capacity></volume>")
    define(conn, driver)
    return made


def test_a_machine_whose_disks_are_all_there_is_fine(
    conn: Any, pool: Any, driver: LibvirtDriver
) -> None:
    assert storage.missing(pool, ["/pool/disk", "/elsewhere/disk"]) == ""
    assert list(findings.without_base(conn, frozenset({driver.host.id}))) == []
    driver.start()
    assert driver.state() is State.RUNNING


@pytest.mark.parametrize("name", ["base", "warm", "disk", "kernel"])
def test_a_machine_that_lacks_a_file_is_named_and_does_not_start(
    conn: Any, pool: Any, driver: LibvirtDriver, name: str
) -> None:
    pool.storageVolLookupByName(name).delete()
    (found,) = findings.without_base(conn, frozenset({driver.host.id}))
    assert (found.level, found.text) == (
        "error",
        f'the machine "w1" needs /pool/{name}, which is gone',
    )
    with pytest.raises(DriverError, match=f"/pool/{name} is gone") as caught:
        driver.start()
    assert "machine rm w1" in caught.value.hint
    assert driver.state() is State.STOPPED
    assert list(findings.without_base(conn, frozenset())) == []


def spec(**other: Any) -> VmSpec:
    image = Image(
        name="i",
        digest="0" * 64,
        arch="x86_64",
        os="debian",
        os_version="13",
        first_boot=FirstBoot.IDENTITY,
        disk=Path("/cache/disk.qcow2"),
        cmdline="quiet",
    )
    nobody = Identity("", "", "", (), "", "")
    given = {"cpus": 1, "memory_mib": 512, "disk_gib": 10, "image": image, "identity": nobody}
    return VmSpec(**{**given, **other})


def test_memory_is_tied_to_everything_that_the_guest_saw(pool: Any, driver: LibvirtDriver) -> None:
    """Another size, another machine type, another kernel: another layer."""
    driver.facts = replace(driver.facts, kind="qemu")
    first = driver.warm_inputs(spec())
    assert driver.warm_inputs(spec()) == first
    assert {"qemu", "libvirt", "uri", "pool"} <= set(first)
    other_image = replace(spec().booted, cmdline="verbose")
    for key, other in (
        ("memory", spec(memory_mib=513)),
        ("cpus", spec(cpus=2)),
        ("disk", spec(disk_gib=11)),
        ("cmdline", spec(image=other_image)),
    ):
        changed = driver.warm_inputs(other)
        assert {name for name in first if first[name] != changed[name]} == {key}
    driver.config = replace(driver.config, machine_type="pc", cpu_mode="host-model")
    changed = driver.warm_inputs(spec())
    assert {name for name in first if first[name] != changed[name]} == {"machine", "cpu"}


@pytest.mark.parametrize(
    ("config", "facts", "said"),
    [
        ({"extra_disk": (1,)}, {}, "further disks"),
        ({}, {"uri": "qemu+ssh://me@far/system"}, "another computer"),
    ],
)
def test_where_there_is_no_warm_start_it_is_said(
    conn: Any,
    driver: LibvirtDriver,
    monkeypatch: pytest.MonkeyPatch,
    config: dict[str, Any],
    facts: dict[str, Any],
    said: str,
) -> None:
    monkeypatch.setitem(connection._open, "qemu+ssh://me@far/system", conn)
    driver.config = replace(driver.config, **config)
    driver.facts = replace(driver.facts, **facts)
    with pytest.raises(WarmRefused, match=said):
        driver.warm_inputs(spec())


def test_memory_is_saved_for_this_user_alone_and_its_form_is_checked(
    conn: Any, driver: LibvirtDriver, tmp_path: Path
) -> None:
    """The form of this hypervisor's file is not the one that is known."""
    domain = define(conn, driver)
    domain.create()
    xml = domain.XMLDesc()
    memory.save(domain, tmp_path)
    assert driver.state() is State.STOPPED
    assert [each.name for each in tmp_path.iterdir() if each.is_file()] == ["memory"]
    assert (tmp_path / "memory").stat().st_mode & 0o777 == 0o600
    with pytest.raises(WarmRefused):
        memory.restore(conn, tmp_path / "memory", "0" * 64, xml)
    assert driver.state() is State.STOPPED
