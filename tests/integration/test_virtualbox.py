"""The VirtualBox driver on the real VBoxManage; what is started has an empty disk, and boots nothing."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from machine.driver import Driver, HostRef
from machine.drivers.virtualbox import media
from machine.drivers.virtualbox.config import VirtualboxConfig, VirtualboxFacts
from machine.drivers.virtualbox.driver import VirtualboxDriver
from machine.drivers.virtualbox.vboxmanage import VBoxManage
from machine.errors import DriverError, MachineError
from machine.model import FirstBoot, Identity, Image, Nic, Size, Snapshot, State, VmSpec
from machine.testing.contract import DriverContract
from tests.e2e.testbed import VirtualboxBed

CALLS = """#!/bin/sh
echo >> {counter}
[ $(wc -l < {counter}) -lt {number} ] || exit 1
exec {real} "$@"
"""
"""A VBoxManage that fails from one of its calls on."""


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualboxBed]:
    with VirtualboxBed(tmp_path_factory.mktemp("bed") / "virtualbox") as made:
        yield made


@pytest.fixture(autouse=True)
def place(bed: VirtualboxBed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its VBoxManage, and its home: what the driver makes has to be where that looks."""
    for name in ("PATH", "HOME"):
        monkeypatch.setenv(name, bed.environment[name])


@pytest.fixture(scope="module")
def image(bed: VirtualboxBed) -> Image:
    """A disk without anything on it."""
    disk = bed.folder / "empty.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "64M"], check=True)
    return Image("empty", "e" * 64, "x86_64", "debian", "13", FirstBoot.CLOUD_INIT, disk)


@pytest.fixture
def spec(image: Image) -> VmSpec:
    identity = Identity("kept", uuid.uuid4().hex, "machine", (), "", "")
    return VmSpec(1, 256, 1, image, identity)


def driver_of(
    bed: VirtualboxBed, name: str, config: VirtualboxConfig | None = None
) -> VirtualboxDriver:
    folder = bed.store / "machines" / name
    folder.mkdir(parents=True, exist_ok=True)
    host = HostRef(name, str(uuid.uuid4()), folder)
    return VirtualboxDriver(host, config or VirtualboxConfig(), VirtualboxFacts())


@pytest.fixture
def driver(bed: VirtualboxBed) -> Iterator[VirtualboxDriver]:
    made = driver_of(bed, "kept")
    yield made
    made.remove()
    made.host.folder.rmdir()


class TestContract(DriverContract):
    driver_type = VirtualboxDriver
    config: ClassVar[dict[str, Any]] = {"network": "internal"}

    @pytest.fixture
    def driver(self, bed: VirtualboxBed) -> Iterator[Driver[Any, Any]]:
        made = driver_of(bed, "contract", VirtualboxConfig(network="internal"))
        yield made
        made.host.folder.rmdir()

    @pytest.fixture(autouse=True)
    def boots(self, image: Image) -> None:
        self.image = image

    def check(self, driver: Driver[Any, Any]) -> None:
        """There is no kernel module here: that it is missed is a test of its own."""

    def spec(self, tmp_path: Path) -> VmSpec:
        return VmSpec(1, 256, 1, self.image, super().spec(tmp_path).identity)


def test_its_life_in_virtualboxs_own_words(
    bed: VirtualboxBed, driver: VirtualboxDriver, spec: VmSpec
) -> None:
    driver.create(spec)
    vbox, vm = VBoxManage(), driver.host.id
    info = vbox.info(vm)
    assert info
    facts = driver.facts
    assert {info["Forwarding(0)"], info["Forwarding(1)"]} == {
        f"ssh,tcp,127.0.0.1,{facts.ssh_port},10.0.2.15,22",
        f"engine,tcp,127.0.0.1,{facts.engine_port},10.0.2.15,2376",
    }
    assert (info["nic2"], info["intnet2"], facts.network) == ("intnet", "machine", "intnet")
    assert (info["memory"], info["cpus"], info["VMState"]) == ("256", "1", "running")
    assert info["uartmode1"] == f"file,{driver.host.folder}/kept/console.log"
    assert vbox.marked(vm, "machine/id") == vm
    seed = driver.host.folder / "kept" / "first-boot.iso"
    assert seed.stat().st_mode & 0o777 == 0o600
    driver.settle()
    assert not seed.exists()
    assert str(seed) not in bed.vbox("list", "dvds")
    for verb, state in (
        (driver.pause, State.PAUSED),
        (driver.start, State.RUNNING),
        (driver.pause, State.PAUSED),
        (driver.resume, State.RUNNING),
        (driver.kill, State.STOPPED),
        (driver.start, State.RUNNING),
    ):
        verb()
        assert driver.state() is state
        assert VirtualboxDriver.survey([driver])["kept"].state is state
        if state is State.STOPPED:
            _grows(bed, driver)


def _grows(bed: VirtualboxBed, driver: VirtualboxDriver) -> None:
    driver.resize(Size(2, 512, 3))
    info = VBoxManage().info(driver.host.id)
    assert info
    assert (info["memory"], info["cpus"]) == ("512", "2")
    shown = bed.vbox("showmediuminfo", str(driver.host.folder / "kept" / "disk.vdi"))
    assert "3072 MBytes" in shown
    with pytest.raises(DriverError) as caught:
        driver.resize(Size(disk_gib=2))
    assert "Shrinking" in caught.value.details


def test_a_vm_process_that_was_killed_is_seen(
    bed: VirtualboxBed, driver: VirtualboxDriver, spec: VmSpec
) -> None:
    driver.create(spec)
    pid = int((bed.home / "vbox" / "qemu" / driver.host.id / "pid").read_text())
    os.kill(pid, 9)
    bed.wait_for(lambda: driver.state() is State.STOPPED)
    sighting = VirtualboxDriver.survey([driver])["kept"]
    assert (sighting.state, sighting.problem) == (State.STOPPED, "its VM process ended by itself")
    assert "ended by itself" in driver.explain()
    driver.start()
    assert driver.state() is State.RUNNING


def test_a_saved_machine_is_seen_and_removed(
    bed: VirtualboxBed, driver: VirtualboxDriver, spec: VmSpec
) -> None:
    driver.create(spec)
    driver.kill()
    saved = bed.folder / "memory.sav"
    saved.write_bytes(b"saved")
    bed.vbox("adoptstate", driver.host.id, str(saved))
    assert driver.state() is State.SAVED
    assert VirtualboxDriver.survey([driver])["kept"].state is State.SAVED
    driver.kill()
    driver.remove()
    assert driver.state() is State.MISSING


def test_ports_that_were_taken_meanwhile_are_exchanged(
    bed: VirtualboxBed, driver: VirtualboxDriver, spec: VmSpec
) -> None:
    driver.create(spec)
    driver.kill()
    before = driver.address()
    with socket.create_server(("127.0.0.1", before.ssh_port)):
        driver.start()
    after = driver.address()
    assert after.ssh_port != before.ssh_port
    assert f"127.0.0.1,{after.ssh_port},10.0.2.15,22" in bed.vbox(
        "showvminfo", driver.host.id, "--machinereadable"
    )


def test_snapshots(driver: VirtualboxDriver, spec: VmSpec) -> None:
    driver.create(spec)
    driver.kill()
    assert driver.snapshots() == []
    driver.snapshot("first")
    driver.snapshot("a second")
    assert driver.snapshots() == [Snapshot("first"), Snapshot("a second", current=True)]
    with pytest.raises(DriverError, match='has a snapshot "first" already'):
        driver.snapshot("first")
    driver.restore("first")
    assert driver.snapshots()[0].current
    with pytest.raises(DriverError, match="it has snapshots"):
        driver.resize(Size(disk_gib=4))
    driver.start()
    driver.kill()
    driver.delete_snapshot("a second")
    for verb in (driver.restore, driver.delete_snapshot):
        with pytest.raises(DriverError, match='no snapshot "a second"'):
            verb("a second")
    driver.remove()
    assert driver.state() is State.MISSING


def test_the_base_outlives_the_last_machine(
    bed: VirtualboxBed, driver: VirtualboxDriver, spec: VmSpec
) -> None:
    """Also where VirtualBox itself removes it, with all that it knows."""
    driver.create(spec)
    driver.kill()
    driver.snapshot("one")
    (base,) = (each for each in media.folder().glob("*.vdi") if ".keep" not in each.name)
    bed.vbox("unregistervm", driver.host.id, "--delete")
    assert driver.state() is State.MISSING
    driver.remove()
    assert base.exists()
    with media.lock():
        media.remove_base(VBoxManage(), base)
    assert not list(media.folder().glob("*.vdi"))
    driver.create(spec)
    assert driver.state() is State.RUNNING


def test_bases_that_nothing_needs_are_pruned(driver: VirtualboxDriver, spec: VmSpec) -> None:
    def prune(*, dry_run: bool) -> list[str]:
        removed = VirtualboxDriver.prune([], frozenset(), frozenset(), dry_run=dry_run)
        return list(removed)

    driver.create(spec)
    assert prune(dry_run=False) == []
    driver.remove()
    assert prune(dry_run=True) == prune(dry_run=False) == ["empty-eeeeeeeeeeeeeeee-1.vdi"]
    assert prune(dry_run=False) == []


def test_a_create_that_fails_at_some_call_is_removed_and_made_again(
    bed: VirtualboxBed, image: Image, spec: VmSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = bed.folder / "bin" / "VBoxManage"
    program, counter = tmp_path / "bin" / "VBoxManage", tmp_path / "counter"
    program.parent.mkdir()
    before = bed.inventory()
    for number in range(1, 100, 3):
        driver = driver_of(bed, "half")
        program.write_text(CALLS.format(counter=counter, number=number, real=real))
        program.chmod(0o755)
        counter.unlink(missing_ok=True)
        with monkeypatch.context() as patch:
            patch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
            try:
                driver.create(spec)
            except MachineError as exc:
                failed: MachineError | None = exc
            else:
                failed = None
        if number % 4 == 0 and failed:
            driver.create(spec)
            assert driver.state() is State.RUNNING
        driver.remove()
        driver.remove()
        driver.host.folder.rmdir()
        assert bed.left_of("half") == "", f"call {number}"
        if failed is None:
            break
    assert number > 20
    assert bed.inventory() == before


def test_a_damaged_settings_file_is_told_and_removed(
    bed: VirtualboxBed, driver: VirtualboxDriver, spec: VmSpec
) -> None:
    driver.create(spec)
    driver.kill()
    (driver.host.folder / "kept" / "kept.vbox").write_text("garbage")
    bed.restart_service()
    assert driver.state() is State.ERROR
    sighting = VirtualboxDriver.survey([driver])["kept"]
    assert (sighting.state, "settings" in sighting.problem) == (State.ERROR, True)
    driver.remove()
    assert driver.state() is State.MISSING


def test_a_name_that_is_taken(bed: VirtualboxBed) -> None:
    bed.vbox(
        "createvm", "--name", "other", "--register", "--basefolder", str(bed.folder / "others")
    )
    refused = bed.machine("create", "-d", "virtualbox", "--virtualbox-no-vtx-check", "other")
    bed.vbox("unregistervm", "other", "--delete")
    assert refused.returncode == 3
    assert 'VirtualBox has another machine called "other" already' in refused.stderr
    assert bed.left_of("other") == ""


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 3, "The processor's virtualization (VT-x, AMD-V) is off"),
        (("--virtualbox-hostonly-cidr", "192.168.99.1/24"), 3, "tee -a /etc/vbox/networks.conf"),
        (("--virtualbox-hostonly-cidr", "nonsense"), 2, "must be an address"),
        (("--virtualbox-share-folder", "/nosuch:x"), 2, "must be a folder that is there"),
        (("--virtualbox-memory", "lots"), 2, "whole number"),
        (("--virtualbox-ui-type", "web"), 2, "one of headless, gui, sdl, separate"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_made(
    bed: VirtualboxBed, words: tuple[str, ...], code: int, said: str
) -> None:
    skip = ("--virtualbox-no-vtx-check",) if words else ()
    refused = bed.machine("create", "-d", "virtualbox", *skip, *words, "wrong")
    assert (refused.returncode, refused.stdout) == (code, "")
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr
    assert bed.left_of("wrong") == ""


def test_flags_that_mean_nothing_here_say_why(bed: VirtualboxBed) -> None:
    flags = ("--virtualbox-boot2docker-url", "x", "--virtualbox-no-share")
    refused = bed.machine("create", "-d", "virtualbox", *flags, "wrong")
    assert refused.returncode == 3
    for flag in (flags[0], flags[2]):
        assert f"{flag} is ignored: " in refused.stderr


def test_without_the_kernel_module_nothing_is_made(bed: VirtualboxBed) -> None:
    script = 'rm /dev/vboxdrv; "$@"; code=$?; mknod /dev/vboxdrv c 10 63; exit $code'
    words = (*bed.tool(), "create", "-d", "virtualbox", "wrong")
    refused = bed.run("sh", "-c", script, "sh", *words)
    assert refused.returncode == 3
    assert "kernel module vboxdrv is not loaded" in refused.stderr
    assert "modprobe vboxdrv" in refused.stderr
    assert bed.left_of("wrong") == ""


def test_a_host_only_network_that_was_asked_for_and_cannot_be_made(
    bed: VirtualboxBed, spec: VmSpec
) -> None:
    driver = driver_of(bed, "asked", VirtualboxConfig(network="hostonly"))
    with pytest.raises(DriverError, match="Failed to create the host-only adapter") as refused:
        driver.create(spec)
    assert "vboxnetctl" in refused.value.details
    driver.remove()
    driver.host.folder.rmdir()
    assert bed.left_of("asked") == ""


def test_options_reach_virtualbox(bed: VirtualboxBed, spec: VmSpec, tmp_path: Path) -> None:
    config = VirtualboxConfig(
        nat_nictype="82540EM",
        hostonly_nicpromisc="allow-all",
        host_dns_resolver=True,
        no_dns_proxy=True,
        share_folder=(f"{bed.folder}:shared",),
    )
    driver = driver_of(bed, "chosen", config)
    driver.create(spec)
    info = VBoxManage().info(driver.host.id)
    assert info
    assert info["nictype1"] == "82540EM"
    assert info["SharedFolderNameMachineMapping1"] == "shared"
    assert "Promisc Policy: allow-all" in bed.vbox("showvminfo", driver.host.id)
    driver.remove()
    driver.host.folder.rmdir()


def test_a_guest_asks_for_its_address_where_that_tells_it_name_servers(
    bed: VirtualboxBed, spec: VmSpec
) -> None:
    def card(config: VirtualboxConfig) -> Nic:
        return driver_of(bed, "dns", config).cards_of_guest()[0]

    assert card(VirtualboxConfig(no_dns_proxy=True)).address is None
    assert card(VirtualboxConfig()).dns == "10.0.2.3"


def test_doctor_removes_a_machine_whose_record_is_lost(bed: VirtualboxBed, spec: VmSpec) -> None:
    driver = driver_of(bed, "lost")
    driver.create(spec)
    vm = driver.host.id
    known = VirtualboxDriver.findings(bed.store, frozenset({vm}), fix=True)
    assert not any("lost" in each.text for each in known)
    (found,) = (
        f for f in VirtualboxDriver.findings(bed.store, frozenset(), fix=False) if vm in f.remedy
    )
    assert f'the VM "lost" belongs to a machine of the store {bed.store}' in found.text
    other = VirtualboxDriver.findings(bed.folder, frozenset(), fix=True)
    assert any("and this store" in each.text for each in other)
    assert driver.state() is State.RUNNING
    fixed = VirtualboxDriver.findings(bed.store, frozenset(), fix=True)
    assert any('the VM "lost" was removed' in each.text and each.fixed for each in fixed)
    assert bed.left_of("lost") == ""


def test_memory_is_what_virtualbox_says(bed: VirtualboxBed, driver: VirtualboxDriver) -> None:
    """Which is another number a moment later."""
    told = bed.vbox("list", "hostinfo")
    (size,) = re.findall(r"Memory size: (\d+) MByte", told)
    available = driver.memory_available()
    assert available
    assert 0 < available <= int(size)


def test_preflight_is_content_in_the_bed(bed: VirtualboxBed) -> None:
    """As the tool runs there: with the device that it looks for."""
    script = (
        "import sys; from pathlib import Path; from machine.driver import HostRef; "
        "from machine.drivers.virtualbox.driver import *; "
        "VirtualboxDriver(HostRef('x', 'x', Path(sys.argv[1])), "
        "VirtualboxConfig(no_vtx_check=True), VirtualboxFacts()).preflight()"
    )
    ran = bed.run(bed.tool()[0], "-c", script, str(bed.folder))
    assert ran.returncode == 0, ran.stderr
