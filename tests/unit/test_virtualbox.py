"""What VBoxManage printed is read (recorded/virtualbox), what it is told is spelt for its version, and
what is missing is named before anything is made."""

from __future__ import annotations

import ipaddress
import os
import socket
from pathlib import Path

import pytest

from machine import flags
from machine.driver import HostRef
from machine.drivers.virtualbox import network, output, preflight, spelling, trouble
from machine.drivers.virtualbox.config import VirtualboxConfig, VirtualboxFacts
from machine.drivers.virtualbox.driver import VirtualboxDriver
from machine.drivers.virtualbox.output import Version
from machine.drivers.virtualbox.vboxmanage import NotInstalled, VBoxManage
from machine.errors import BadOption, PreflightError
from machine.model import Size, Snapshot, State

RECORDED = Path(__file__).parent / "recorded" / "virtualbox"
VERSIONS = ("6.1", "7.0", "7.1", "7.2")
W1 = "11111111-2222-4333-8444-555555555555"
ODD = "22222222-2222-4333-8444-555555555555"
DAMAGED = "33333333-2222-4333-8444-555555555555"
OTHER = "0a1b2c3d-1111-4222-8333-444455556666"


def recorded(version: str, name: str) -> str:
    """As printed, without Debian's warning."""
    for path in (RECORDED / version / f"{name}.txt", RECORDED / version / f"{name}.documented.txt"):
        if path.exists():
            return output.answer(path.read_text())
    raise FileNotFoundError(name)


# Reading


def test_the_warning_before_an_answer_is_skipped() -> None:
    printed = (RECORDED / "7.2" / "version.txt").read_text()
    assert printed.startswith("WARNING")
    assert output.answer(printed) == "7.2.22_Debianr175245\n"
    assert output.answer("7.2.4r170995\n") == "7.2.4r170995\n"


@pytest.mark.parametrize("version", VERSIONS)
def test_versions(version: str) -> None:
    found = output.version(recorded(version, "version"))
    assert found
    assert f"{found.major}.{found.minor}" == version


@pytest.mark.parametrize(
    "text", ["", "VBoxManage", "7.2", "bash: fork failed", "<html>7.0.1.2</html>"]
)
def test_what_is_no_version(text: str) -> None:
    assert output.version(text) is None


def test_names_may_hold_quotes_and_umlauts() -> None:
    assert output.vms(recorded("7.2", "list-vms")) == {
        W1: "w1",
        ODD: 'q"x" ü',
        DAMAGED: "<inaccessible>",
    }


@pytest.mark.parametrize("version", VERSIONS[:3])
def test_machines_of_older_versions(version: str) -> None:
    assert output.vms(recorded(version, "list-vms")) == {OTHER: "w1"}


@pytest.mark.parametrize(
    ("version", "state"),
    [("6.1", "saved"), ("7.0", "aborted-saved"), ("7.1", "running"), ("7.2", "poweroff")],
)
def test_settings(version: str, state: str) -> None:
    values = output.settings(recorded(version, "showvminfo"))
    assert values["VMState"] == state  # not what a description's second line says
    assert values["sata-0-0"].endswith(".vdi")
    assert values["nic1"] == "nat"
    assert values["uartmode1"].endswith("/console.log")


def test_forwards_are_read_as_they_are_written() -> None:
    values = output.settings(recorded("7.1", "showvminfo"))
    assert output.forwards(values) == {
        "ssh": output.forward("ssh", 26000, network.GUEST, 22),
        "engine": output.forward("engine", 26001, network.GUEST, 2376),
    }
    assert output.forwards(output.settings(recorded("7.0", "showvminfo"))) == {}


@pytest.mark.parametrize(
    ("version", "state"), [("6.1", State.SAVED), ("7.0", State.SAVED), ("7.1", State.RUNNING)]
)
def test_states_of_all_machines_by_one_call(version: str, state: State) -> None:
    assert output.sights(recorded(version, "list-long-vms"))[OTHER].state is state


def test_a_machine_that_cannot_be_read_hides_no_other() -> None:
    found = output.sights(recorded("7.2", "list-long-vms"))
    assert {vm: sight.state for vm, sight in found.items()} == {
        W1: State.STOPPED,
        DAMAGED: State.ERROR,
        ODD: State.STOPPED,
    }
    assert "settings" in found[DAMAGED].problem


def test_states_have_a_word_where_one_helps() -> None:
    assert output.sight("aborted") == (State.STOPPED, "its VM process ended by itself")
    assert output.sight("gurumeditation").state is State.ERROR
    assert output.sight("Guru Meditation") == output.sight("gurumeditation")
    assert output.sight("dreaming") == (State.UNKNOWN, "VirtualBox says: dreaming")


def test_disks_know_what_they_are_laid_over() -> None:
    base, child, *_ = list(output.blocks(recorded("7.2", "list-hdds")))
    assert base["Parent UUID"] == "base"
    assert child["Parent UUID"] == base["UUID"]
    assert child["Location"] == "/home/user/store/disk.vdi"


def test_networks() -> None:
    first, second = output.blocks(recorded("6.1", "list-hostonlyifs"))
    assert (first["Name"], first["IPAddress"]) == ("vboxnet0", "192.168.56.1")
    assert second["NetworkMask"] == "255.255.255.0"
    ours, other = output.blocks(recorded("7.0", "list-hostonlynets"))
    assert (ours["Name"], ours["LowerIP"]) == ("machine", "192.168.59.1")
    assert other["Name"] == "other"


def test_snapshots() -> None:
    assert output.snapshots(recorded("7.2", "snapshots")) == [
        Snapshot("s1"),
        Snapshot("s 2", current=True),
    ]
    assert output.snapshots("") == []


@pytest.mark.parametrize(
    ("version", "name", "text", "code"),
    [
        ("7.2", "not-found", "Could not find a registered machine", "VBOX_E_OBJECT_NOT_FOUND"),
        ("7.2", "inaccessible", "The object functionality is limited", "E_ACCESSDENIED"),
        ("7.2", "startvm", "The virtual machine 'w1' has terminated", "NS_ERROR_FAILURE"),
        ("7.2", "hostonlyif-create", "Failed to create the host-only", "NS_ERROR_FAILURE"),
        ("7.2", "exists", "Machine settings file", "VBOX_E_FILE_ERROR"),
        ("7.2", "not-running", "is not currently running.", ""),
        ("7.2", "usage", 'Unknown subcommand "hostonlynets".', ""),
        ("6.1", "hostonlyif-ipconfig", "Code E_ACCESSDENIED", "E_ACCESSDENIED"),
        ("6.1", "startvm-windows", "Not in a hypervisor partition", "E_FAIL"),
        ("7.0", "locked", "The machine 'w1' is already locked", "VBOX_E_INVALID_OBJECT_STATE"),
    ],
)
def test_errors(version: str, name: str, text: str, code: str) -> None:
    found = output.failure(recorded(version, f"{name}.stderr"))
    assert text in found.text
    assert found.code == code


def test_an_error_may_be_of_another_kind() -> None:
    assert output.failure("") == output.Failure("", "")
    assert output.failure("sh: 1: cannot fork\n").text == "sh: 1: cannot fork"


def test_every_version_spells_every_setting() -> None:
    assert {tuple(sorted(table)) for table in spelling.MODIFYVM.values()} == {
        tuple(sorted(spelling.of(Version(7, 2, 0))))
    }


# What is missing


def test_without_vboxmanage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotInstalled) as missing:
        VBoxManage()
    assert "Install VirtualBox" in missing.value.hint
    driver = VirtualboxDriver(HostRef("w1", W1, tmp_path), VirtualboxConfig(), VirtualboxFacts())
    assert driver.state() is State.MISSING
    driver.remove()
    made = VirtualboxDriver(driver.host, driver.config, VirtualboxFacts(ssh_port=26000))
    assert made.state() is State.UNKNOWN
    assert VirtualboxDriver.survey([made])["w1"].state is State.UNKNOWN
    (finding,) = VirtualboxDriver.findings(tmp_path, frozenset(), fix=False)
    assert (finding.level, "not installed" in finding.text) == ("warning", True)


def test_a_version_that_is_too_old_or_not_known() -> None:
    with pytest.raises(PreflightError, match="too old"):
        preflight.version(Version(5, 2, 44))
    assert "going on" in preflight.version(Version(7, 3, 0))
    assert all(preflight.version(Version(*key, 10)) == "" for key in spelling.MODIFYVM)


def test_without_the_kernel_module(tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match="vboxdrv is not loaded") as missing:
        preflight.kernel_module(tmp_path / "vboxdrv")
    assert "modprobe vboxdrv" in missing.value.hint
    preflight.kernel_module(tmp_path)


def test_without_the_processors_virtualization(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nflags\t\t: fpu vme\n")
    with pytest.raises(PreflightError) as off:
        preflight.processor(info)
    assert "firmware" in off.value.hint
    assert "--virtualbox-no-vtx-check" in off.value.hint
    info.write_text("processor\t: 0\nflags\t\t: fpu vmx vme\n")
    preflight.processor(info)


def test_with_hyper_v() -> None:
    with pytest.raises(PreflightError, match="Hyper-V") as on:
        preflight.hyper_v("True\r\n")
    assert "bcdedit" in on.value.hint
    preflight.hyper_v("False\r\n")


@pytest.mark.parametrize(
    ("said", "platform", "remedy"),
    [
        ((RECORDED / "6.1/startvm.stderr.documented.txt").read_text(), "linux", trouble.FIRMWARE),
        ((RECORDED / "6.1/startvm-windows.stderr.documented.txt").read_text(), "win32", "bcdedit"),
        (
            "AMD-V is disabled in the BIOS (or by the host OS) (VERR_SVM_DISABLED)",
            "linux",
            "firmware",
        ),
        (
            "VirtualBox can't operate in VMX root mode (VERR_VMX_IN_VMX_ROOT_MODE)",
            "linux",
            "modprobe -r",
        ),
        ("Kernel driver not installed (rc=-1908)", "linux", "vboxconfig"),
        ("Kernel driver not installed (rc=-1908)", "darwin", "Privacy & Security"),
        ("Kernel driver not installed (rc=-1908)", "win32", "sc start vboxsup"),
        ("Kernel driver not accessible (rc=-1909)", "linux", "usermod -aG vboxusers"),
        ("VERR_VM_DRIVER_NOT_ACCESSIBLE", "win32", "session"),
        ("Invalid RAM size: 1 MB", "linux", ""),
    ],
)
def test_errors_of_a_start_have_a_remedy(said: str, platform: str, remedy: str) -> None:
    found = trouble.hint(said, platform)
    assert remedy in found
    assert bool(remedy) == bool(found)


# Networks


@pytest.mark.parametrize(
    "text", ["", "192.168.59.1", "192.168.59.0/24", "fe80::1/64", "10.0.0.1/33"]
)
def test_what_is_no_network(text: str) -> None:
    with pytest.raises(BadOption, match="hostonly-cidr"):
        network.cidr(text)


def test_the_range_that_virtualbox_keeps_to() -> None:
    old, new = Version(6, 1, 26), Version(6, 1, 28)
    docker_machines = network.cidr("192.168.99.1/24")
    network.check_range(docker_machines, old, None)
    network.check_range(network.cidr("192.168.59.1/24"), new, None)
    with pytest.raises(PreflightError, match=r"allowed: 192.168.56.0/21") as refused:
        network.check_range(docker_machines, new, None)
    assert "echo '* 192.168.99.0/24' | sudo tee -a /etc/vbox/networks.conf" in refused.value.hint
    network.check_range(docker_machines, new, "# ours\n* 10.0.0.0/8 192.168.0.0/16 2001::/64\n")
    with pytest.raises(PreflightError):
        network.check_range(network.cidr("192.168.59.1/24"), new, "* 10.0.0.0/8\n")


def test_a_network_that_is_there_already() -> None:
    wanted = network.cidr("192.168.59.1/24")
    mask = {"NetworkMask": "255.255.255.0"}
    network.check_collision(wanted, [{"Name": "vboxnet0", "IPAddress": "192.168.59.1", **mask}])
    network.check_collision(wanted, [{"Name": "eth0", "IPAddress": "10.0.0.7", **mask}])
    network.check_collision(wanted, [{"Name": "eth1", "IPAddress": "0.0.0.0", "NetworkMask": ""}])
    with pytest.raises(PreflightError, match="collide with wlan0"):
        network.check_collision(wanted, [{"Name": "wlan0", "IPAddress": "192.168.59.8", **mask}])


def test_ports_that_somebody_listens_at_are_left_out() -> None:
    first = network.free_ports(W1)
    assert first == network.free_ports(W1)
    with socket.create_server(("127.0.0.1", first[1])):
        assert network.free_ports(W1) != first


def test_internal_addresses_are_a_machines_own() -> None:
    assert network.internal(W1) == network.internal(W1)
    assert network.internal(W1).address != network.internal(OTHER).address
    address = ipaddress.ip_interface(network.internal(W1).address)
    assert address.network == ipaddress.ip_network("10.77.0.0/16")


# Options


def test_docker_machines_units_and_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIRTUALBOX_MEMORY_SIZE", "2048")
    monkeypatch.setenv("VIRTUALBOX_DISK_SIZE", "20000")
    monkeypatch.setenv("VIRTUALBOX_CPU_COUNT", "-1")
    config = flags.build("virtualbox", VirtualboxConfig, {}, {})
    cpus = min(os.cpu_count() or 1, 32)
    assert VirtualboxDriver.size(config) == Size(cpus, memory_mib=2048, disk_gib=20)
    assert VirtualboxDriver.size(VirtualboxConfig()) == Size()
    assert VirtualboxDriver.size(VirtualboxConfig(cpu_count=3)).cpus == 3


@pytest.mark.parametrize("share", ["/nosuchfolder:x", "/", ":x", "/:", ""])
def test_what_is_no_shared_folder(share: str) -> None:
    with pytest.raises(BadOption, match="share-folder"):
        preflight.shares(VirtualboxConfig(share_folder=(share,)))


def test_a_shared_folder(tmp_path: Path) -> None:
    config = VirtualboxConfig(share_folder=(f"{tmp_path}:here",))
    assert preflight.shares(config) == [(str(tmp_path), "here")]


def test_the_console_begins_anew_at_each_start(tmp_path: Path) -> None:
    driver = VirtualboxDriver(HostRef("w1", W1, tmp_path), VirtualboxConfig(), VirtualboxFacts())
    assert driver.console() == (b"", 0)
    (tmp_path / "w1").mkdir()
    log = tmp_path / "w1" / "console.log"
    log.write_bytes(b"first boot")
    assert driver.console() == (b"first boot", 10)
    assert driver.console(6) == (b"boot", 10)
    assert driver.console(10) == (b"", 10)
    log.write_bytes(b"second")
    assert driver.console(10) == (b"second", 6)


def test_nothing_is_written_where_there_never_was_a_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`layer prune` and `doctor` ask every driver."""
    home = tmp_path / "clean"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PATH", str(home))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert VirtualboxDriver.prune([], frozenset(), frozenset(), dry_run=False) == {}
    VirtualboxDriver.findings(home / "store", frozenset(), fix=False)
    assert list(home.iterdir()) == []
