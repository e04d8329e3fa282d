"""A create that is killed at each of its steps; several at once; a boot that never ends."""

from __future__ import annotations

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from machine.workflows.create import STEPS
from tests.e2e.testbed import SystemBed

pytestmark = pytest.mark.e2e

NAMES = [name for name, _, _ in STEPS]


def kill_at(bed: SystemBed, step: str, *words: str) -> None:
    """Run a create and end it with SIGKILL at the moment when the step starts."""
    process = bed.popen(*words, "--output", "json")
    assert process.stdout
    for line in process.stdout:
        event = json.loads(line)
        if event["kind"] == "StepStarted" and event["data"]["step"] == step:
            os.kill(process.pid, signal.SIGKILL)
            break
    else:
        pytest.fail(f"The step {step} never started")
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()


def left_of(bed: SystemBed, name: str) -> str:
    """What there is of a machine anywhere: domains, volumes, reservations, files."""
    places = (
        bed.run("virsh", "list", "--all", "--name").stdout,
        bed.run("virsh", "vol-list", "machine").stdout,
        bed.run("virsh", "net-dumpxml", "machine").stdout,
        "\n".join(each.name for each in bed.store.glob("machines/*")),
    )
    return "\n".join(line for text in places for line in text.splitlines() if name in line)


def test_killed_at_every_step_it_is_resumed(bed: SystemBed) -> None:
    words: tuple[str, ...] = ("create", "-d", "libvirt", "phoenix")
    for step in NAMES:
        kill_at(bed, step, *words)
        words = ("create", "--resume", "phoenix")
        assert bed.machine("ls", "-q").stdout == "phoenix\n"
    ended = bed.machine(*words)
    assert ended.returncode == 0, ended.stderr
    assert bed.machine("config", "phoenix").returncode == 0
    assert bed.machine("ssh", "phoenix", "hostname").stdout == "phoenix\n"
    again = bed.machine(*words)
    assert again.returncode == 1
    assert "nothing to resume" in again.stderr
    assert bed.machine("rm", "-y", "phoenix").returncode == 0
    assert left_of(bed, "phoenix") == ""


def test_killed_at_every_step_it_is_removed(bed: SystemBed) -> None:
    def check(step: str) -> str:
        name = f"gone-{step}"
        kill_at(bed, step, "create", "-d", "libvirt", name)
        removed = bed.machine("rm", "-y", name)
        return removed.stderr if removed.returncode else left_of(bed, name)

    with ThreadPoolExecutor(2) as pool:
        left = dict(zip(NAMES, pool.map(check, NAMES), strict=True))
    assert left == dict.fromkeys(NAMES, "")


def test_several_at_once_on_an_empty_store(bed: SystemBed) -> None:
    env = {"MACHINE_STORAGE_PATH": str(bed.folder / "several")}
    names = ["several1", "several2"]
    made = bed.machine("create", "-d", "libvirt", *names, env=env, timeout=1500)
    assert made.returncode == 0, made.stderr
    listed = json.loads(bed.machine("ls", "--output", "json", env=env).stdout)["data"]
    assert [row["name"] for row in listed] == names
    assert all(row["engine_version"] for row in listed), listed
    assert len({row["url"] for row in listed}) == len(names)
    authorities = {
        (bed.folder / "several" / "machines" / name / "ca.pem").read_bytes() for name in names
    }
    assert authorities == {(bed.folder / "several" / "certs" / "ca.pem").read_bytes()}
    removed = bed.machine("rm", "-y", *names, env=env)
    assert removed.returncode == 0, removed.stderr
    assert left_of(bed, "several") == ""


def test_a_guest_that_never_boots_is_told_with_its_console_and_undone(bed: SystemBed) -> None:
    failed = bed.machine("create", "-d", "libvirt", "--libvirt-boot-timeout", "1", "late")
    assert failed.returncode == 1
    assert 'Waited 1 s for "late" to take a login over SSH' in failed.stderr
    assert "console" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert left_of(bed, "late") == ""
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
    assert left_of(bed, "cut") == ""


def test_without_libvirt_nothing_is_made_and_the_remedy_is_named(bed: SystemBed) -> None:
    refused = bed.machine(
        "create", "-d", "libvirt", "--libvirt-uri", "qemu+unix:///system?socket=/nowhere", "none1"
    )
    assert refused.returncode == 3
    assert "libvirt does not answer at" in refused.stderr
    assert bed.machine("ls", "-q").stdout == ""
