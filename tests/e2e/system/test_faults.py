"""A create without layers that is killed at each of its steps (with them: test_layer_faults.py);
several at once; a boot that never ends."""

from __future__ import annotations

import json
import re
import shutil
import signal
from pathlib import Path

import pytest

from machine.workflows.create import STEPS
from tests.artefact import CACHE
from tests.e2e.testbed import SystemBed

pytestmark = pytest.mark.e2e

NAMES = [name for name, _, _ in STEPS if name != "layer"]  # it has nothing to do here


@pytest.fixture(scope="module")
def static_cache(bed: SystemBed) -> Path:
    """The images that are there, and no bundles yet."""
    own = bed.folder / "static-cache"
    own.mkdir()
    (own / "images").symlink_to(CACHE / "images")
    return own


@pytest.fixture(scope="module")
def static(bed: SystemBed) -> str:
    """A template."""
    path = bed.folder / "static.toml"
    path.write_text('base = ["debian-13"]\nbundle = "static"\n')
    return str(path)


def test_without_a_static_bundle_nothing_is_made_and_it_says_what_to_type(
    bed: SystemBed, static_cache: Path, static: str
) -> None:
    with bed.using(static_cache):
        refused = bed.machine("create", "-d", "libvirt", "-t", static, "early")
    assert refused.returncode == 3
    assert "There is no static bundle of docker" in refused.stderr
    assert "machine bundle build docker --kind static --from https://" in refused.stderr
    assert bed.machine("ls", "-q").stdout == ""


def test_killed_at_every_step_it_is_resumed(
    bed: SystemBed,
    static_cache: Path,
    static: str,
    static_archive: Path,
    docker: str,
    image_tar: Path,
) -> None:
    """Its engine comes from a static archive, by the attached disk (over SSH, and packages:
    tests/integration/test_static_bundle.py)."""
    with bed.using(static_cache):
        made = ("bundle", "build", "docker", "--kind", "static", "--from", str(static_archive))
        built = bed.machine(*made)
    assert built.returncode == 0, built.stderr
    words: tuple[str, ...] = ("create", "-d", "libvirt", "-t", static, "--no-layers", "phoenix")
    with bed.using(static_cache):
        for step in NAMES:
            bed.killed_at(step, *words)
            words = ("create", "--resume", "phoenix")
            assert bed.machine("ls", "-q").stdout == "phoenix\n"
        ended = bed.machine(*words)
    assert ended.returncode == 0, ended.stderr
    assert bed.machine("config", "phoenix").returncode == 0
    assert bed.machine("ssh", "phoenix", "hostname").stdout == "phoenix\n"
    dockerd = bed.machine("ssh", "phoenix", "sudo readlink /proc/$(pgrep -x dockerd)/exe").stdout
    assert dockerd == "/usr/local/libexec/machine/docker/26.1.5/dockerd\n"
    env = bed.variables("phoenix")
    imported = bed.run(docker, "import", "-c", "ENV PATH=/bin", str(image_tar), "hello", env=env)
    assert imported.returncode == 0, imported.stderr
    options = ("run", "-i", "--rm", "--init", "-p", "8080:80", "hello", "cat")
    ran = bed.run(docker, *options, stdin="from here\n", env=env)
    assert (ran.returncode, ran.stdout) == (0, "from here\n"), ran.stderr
    again = bed.machine(*words)
    assert again.returncode == 1
    assert "nothing to resume" in again.stderr
    assert bed.machine("rm", "-y", "phoenix").returncode == 0
    assert bed.left_of("phoenix") == ""


def test_killed_at_work_on_the_host_it_is_removed(bed: SystemBed) -> None:
    """At other steps: tests/e2e/test_amazonec2.py."""
    bed.killed_at("install", "create", "-d", "libvirt", "--no-layers", "gone")
    removed = bed.machine("rm", "-y", "gone")
    assert removed.returncode == 0, removed.stderr
    assert bed.left_of("gone") == ""


def bases(bed: SystemBed) -> set[str]:
    """Disks in the pool that machines' own are laid over."""
    listed = bed.run("virsh", "vol-list", "machine").stdout.split()
    return {word for word in listed if re.fullmatch(r"machine-base-.*\.qcow2", word)}


def test_several_at_once_on_an_empty_store(bed: SystemBed) -> None:
    """One authority, one network, one layer and one upload of it, two machines that work."""
    before = bases(bed)
    env = {"MACHINE_STORAGE_PATH": str(bed.folder / "several")}
    names = [f"several{number}" for number in range(1, 3)]
    made = bed.machine("create", "-d", "libvirt", *names, env=env, timeout=1500)
    assert made.returncode == 0, made.stderr
    listed = json.loads(bed.machine("ls", "--output", "json", env=env).stdout)["data"]
    assert [row["name"] for row in listed] == names
    assert all(row["engine_version"] for row in listed), listed
    assert len({row["url"] for row in listed}) == len(names)
    bed.machine("ssh", names[0], "echo from the first > letter", env=env)
    sent = bed.machine("scp", "-q", f"{names[0]}:letter", f"{names[1]}:", env=env)
    assert sent.returncode == 0, sent.stderr
    assert bed.machine("ssh", names[1], "cat letter", env=env).stdout == "from the first\n"
    authorities = {
        (bed.folder / "several" / "machines" / name / "ca.pem").read_bytes() for name in names
    }
    assert authorities == {(bed.folder / "several" / "certs" / "ca.pem").read_bytes()}
    assert bed.run("virsh", "net-list", "--all", "--name").stdout.split() == ["machine"]
    assert len(bases(bed) - before) == 1
    removed = bed.machine("rm", "-y", *names, env=env)
    assert removed.returncode == 0, removed.stderr
    assert bed.left_of("several") == ""


def test_a_guest_that_never_boots_is_told_with_its_console_and_undone(bed: SystemBed) -> None:
    failed = bed.machine("create", "-d", "libvirt", "--libvirt-boot-timeout", "1", "late")
    assert failed.returncode == 1
    assert 'Waited 1 s for "late" to take a login over SSH' in failed.stderr
    assert "console" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert bed.left_of("late") == ""
    assert bed.machine("ls", "-q").stdout == ""


def test_an_interrupt_ends_it_and_says_what_exists(bed: SystemBed) -> None:
    said = bed.folder / "interrupted.log"
    with said.open("w") as log:
        process = bed.popen("create", "-d", "libvirt", "--output", "json", "cut", stderr=log)
        assert process.stdout
        for line in process.stdout:
            if json.loads(line)["data"].get("step") == "boot":
                process.send_signal(signal.SIGINT)
                break
        assert process.wait(timeout=10) == 130
        process.stdout.close()
    assert "machine create --resume cut" in said.read_text()
    assert "machine rm cut" in said.read_text()
    removed = bed.machine("rm", "-y", "cut")
    assert removed.returncode == 0, removed.stderr
    assert bed.left_of("cut") == ""


def test_without_libvirt_nothing_is_made_and_the_remedy_is_named(bed: SystemBed) -> None:
    refused = bed.machine(
        "create", "-d", "libvirt", "--libvirt-uri", "qemu+unix:///system?socket=/nowhere", "none1"
    )
    assert refused.returncode == 3
    assert "libvirt does not answer at" in refused.stderr
    assert bed.machine("ls", "-q").stdout == ""


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--libvirt-pool", "nosuch"), 3, 'no storage pool "nosuch"'),
        (("--libvirt-network", "nosuch"), 3, 'no network "nosuch"'),
        (("--libvirt-machine-type", "nosuch"), 2, "not known to the emulator"),
        (("--libvirt-accel", "hyper"), 2, "one of auto, kvm, tcg"),
        (("--libvirt-extra-disk", "big"), 2, "whole number"),
        (("--libvirt-uri", "qemu:///nosuch"), 3, "libvirt does not answer at"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_made(
    bed: SystemBed, words: tuple[str, ...], code: int, said: str
) -> None:
    refused = bed.machine("create", "-d", "libvirt", *words, "wrong")
    assert (refused.returncode, refused.stdout) == (code, "")
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr
    assert bed.left_of("wrong") == ""


def test_doctor_removes_a_vm_whose_record_is_lost(bed: SystemBed) -> None:
    bed.killed_at("boot", "create", "-d", "libvirt", "lost")
    shutil.rmtree(bed.store / "machines" / "lost")
    found = bed.machine("doctor")
    assert 'the VM "lost" belongs to a machine of the store' in found.stdout
    assert "lost" in bed.left_of("lost")
    mended = bed.machine("doctor", "--fix")
    assert 'the VM "lost" was removed' in mended.stdout
    assert bed.left_of("lost") == ""


def test_a_full_disk_loses_nothing(bed: SystemBed) -> None:
    """The store's own file system has no room for another record."""
    store = bed.folder / "small"
    store.mkdir()
    script = (
        'mount -t tmpfs -o size=64k tmpfs "$1" && mkdir "$1/machines" && '
        'head -c 61440 /dev/zero > "$1/filler"; shift; "$@"; code=$?; '
        'find "$MACHINE_STORAGE_PATH" -type f; exit $code'
    )
    full = bed.run(
        *("unshare", "-m", "sh", "-c", script, "sh", str(store)),
        *(*bed.tool(), "create", "-d", "libvirt", "full"),
        env={"MACHINE_STORAGE_PATH": str(store)},
    )
    assert full.returncode == 1
    assert "Cannot write the store: No space left on device" in full.stderr
    assert "Traceback" not in full.stderr
    assert bed.left_of("full") == ""


def test_a_store_that_is_read_only_is_told(bed: SystemBed) -> None:
    store = bed.folder / "read-only"
    store.mkdir()
    script = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1"; shift; exec "$@"'
    words = ("unshare", "-m", "sh", "-c", script, "sh", str(store))
    env = {"MACHINE_STORAGE_PATH": str(store)}
    refused = bed.run(*words, *bed.tool(), "create", "-d", "libvirt", "ro", env=env)
    assert refused.returncode == 1
    assert "Read-only file system" in refused.stderr
    assert "--storage-path" in refused.stderr
    listed = bed.run(*words, *bed.tool(), "ls", env=env)
    assert listed.returncode == 0
