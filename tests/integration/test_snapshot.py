"""`machine snapshot`, over the driver that keeps its hosts in folders."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pexpect
import pytest

from machine.model import State
from machine.store import Store
from tests.integration.test_cli import ROOT, machine
from tests.machines import made

pytestmark = pytest.mark.filterwarnings("ignore:.*forkpty:DeprecationWarning")


def disk(name: str) -> Path:
    """What the machine's guest has written."""
    return Store().folder(name).root / Store().load(name).ours.id / "disk"


@pytest.fixture
def kept(stopped: str) -> str:
    """A stopped machine with two snapshots, written to after each of them."""
    for text in ("first", "second", "third"):
        disk(stopped).write_text(text)
        if text != "third":
            taken = machine("snapshot", "take", stopped, text)
            assert (taken.returncode, taken.stdout) == (0, ""), taken.stderr
    return stopped


def test_they_are_listed_in_their_order(kept: str) -> None:
    listed = machine("snapshot", "ls", kept)
    assert [line.split()[0] for line in listed.stdout.splitlines()] == [
        "SNAPSHOT",
        "first",
        "second",
    ]
    data = json.loads(machine("snapshot", "ls", kept, "--output", "json").stdout)
    assert (data["kind"], [each["name"] for each in data["data"]]) == (
        "snapshots",
        ["first", "second"],
    )


def test_a_machine_returns_to_one_and_its_next_start_compares(kept: str) -> None:
    for name in ("first", "second"):
        restored = machine("snapshot", "restore", "-y", kept, name)
        assert restored.returncode == 0, restored.stderr
        assert disk(kept).read_text() == name
    assert Store().load(kept).ours.restored


def test_one_is_forgotten_and_the_machine_stays(kept: str) -> None:
    removed = machine("snapshot", "rm", kept, "first", "--output", "json")
    assert removed.returncode == 0, removed.stderr
    assert disk(kept).read_text() == "third"
    listed = machine("snapshot", "ls", kept).stdout
    assert "first" not in listed
    assert "second" in listed


def test_the_present_state_is_not_lost_unasked(kept: str) -> None:
    refused = machine("snapshot", "restore", kept, "first")
    assert refused.returncode == 2
    assert "Add -y" in refused.stderr
    assert disk(kept).read_text() == "third"
    argv = ["-m", "machine", "snapshot", "restore", kept, "first"]
    for answer, text in (("n", "third"), ("y", "first")):
        child = pexpect.spawn(sys.executable, argv, cwd=str(ROOT), encoding="utf-8", timeout=60)
        child.expect('Everything on "s1" that is newer than "first" is lost. Are you sure')
        child.sendline(answer)
        child.expect(pexpect.EOF)
        child.close()
        assert (child.exitstatus, disk(kept).read_text()) == (0, text)


def test_a_running_machine_is_not_returned_without_a_word(host: str) -> None:
    assert machine("snapshot", "take", host, "first").returncode == 0
    refused = machine("snapshot", "restore", "-y", host, "first")
    assert refused.returncode == 1
    assert refused.stderr.splitlines() == [
        'Error: "f1" is Running, and has to be stopped to return to a snapshot',
        "  machine stop f1",
        "  or power it off and start it again: machine snapshot restore --restart f1 first",
    ]
    assert machine("status", host).stdout == "Running\n"


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (("take", "s1", "first"), 1, 'Error: "s1" has a snapshot "first" already'),
        (("take", "s1", "a b"), 2, "Error: A snapshot cannot be called 'a b'"),
        (("take", "s1", "../up"), 2, "Error: A snapshot cannot be called '../up'"),
        (("restore", "s1", "nosuch"), 1, 'Error: "s1" has no snapshot "nosuch"'),
        (("rm", "s1", "nosuch"), 1, 'Error: "s1" has no snapshot "nosuch"'),
        (("rm", "nosuch", "first"), 1, 'Docker machine "nosuch" does not exist.'),
    ],
)
def test_what_is_wrong_is_told(kept: str, words: tuple[str, ...], code: int, line: str) -> None:
    ran = machine("snapshot", *words)
    assert (ran.returncode, ran.stdout) == (code, "")
    assert line in ran.stderr.splitlines()


def test_a_driver_that_keeps_none_says_so(own_home: Path) -> None:
    made("l1", "libvirt", State.STOPPED)
    for words in (
        ("take", "l1", "a"),
        ("ls", "l1"),
        ("restore", "l1", "a"),
        ("rm", "l1", "a"),
    ):
        ran = machine("snapshot", *words)
        assert (ran.returncode, ran.stdout) == (1, "")
        assert ran.stderr == "Error: The libvirt driver keeps no snapshots\n"


def test_what_holds_the_secrets_of_a_first_boot_is_not_kept(stopped: str) -> None:
    record = Store().load(stopped)
    record.ours.journal.finished = False
    Store().save(record)
    refused = machine("snapshot", "take", stopped, "early")
    assert refused.returncode == 1
    assert f"machine create --resume {stopped}" in refused.stderr
