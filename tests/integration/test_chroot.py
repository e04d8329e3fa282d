"""Programs run in an unpacked system, here the smallest one: busybox and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from machine.chroot import ChrootGuest
from machine.errors import CommandFailed
from machine.guest import Guest


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    busybox = shutil.which("busybox")
    assert busybox
    for name in ("bin", "dev", "proc", "etc"):
        (root / name).mkdir(parents=True)
    shutil.copy(busybox, root / "bin" / "busybox")
    (root / "etc" / "passwd").write_text("root:x:0:0::/:/bin/sh\nother:x:7:7::/:/bin/sh\n")
    (root / "etc" / "group").write_text("root:x:0:\nother:x:7:\n")
    words = "sh env cat chmod chown mkdir dirname mv test base64 ls id stat mount echo head"
    for name in words.split():
        (root / "bin" / name).symlink_to("busybox")
    return root


@pytest.fixture
def guest(root: Path) -> Guest:
    return ChrootGuest(root)


def test_it_sees_nothing_but_its_own_files(guest: Guest, root: Path) -> None:
    assert guest.run("ls", "/").stdout.split() == ["bin", "dev", "etc", "proc"]
    assert guest.get(str(root / "etc" / "passwd")) is None


def test_it_is_root_with_an_environment_of_its_own(
    guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "of this computer")
    assert guest.run("id", "-u").stdout == "0\n"
    names = {line.split("=")[0] for line in guest.run("env").stdout.splitlines()}
    assert {"PATH", "LC_ALL"} <= names <= {"PATH", "LC_ALL", "PWD", "SHLVL", "_"}


def test_words_and_input_are_passed_as_they_are(guest: Guest) -> None:
    words = ("a b", "$HOME", "'", '"', "", "ü", "*")
    shown = guest.run("sh", "-c", 'for word in "$@"; do echo "<$word>"; done', "sh", *words)
    assert shown.stdout.splitlines() == [f"<{word}>" for word in words]
    assert guest.run("cat", stdin=b"given\n").stdout == "given\n"


def test_a_failure_is_told(guest: Guest) -> None:
    with pytest.raises(CommandFailed) as caught:
        guest.run("ls", "/nosuch")
    assert "No such file" in caught.value.details
    assert guest.run("sh", "-c", "exit 7", check=False).code == 7


def test_a_script_ends_at_its_first_failure(guest: Guest) -> None:
    said = guest.script("echo first\ncat /nosuch\necho second", check=False)
    assert (said.ok, said.stdout) == (False, "first\n")
    assert not guest.script("echo $nosuch", check=False).ok


def test_files_have_the_mode_and_owner_that_was_asked_for(guest: Guest, root: Path) -> None:
    content = bytes(range(256)) * 300
    guest.put(content, "/etc/deep/file", mode=0o640, owner="other:other")
    assert guest.run("stat", "-c", "%a %U %G", "/etc/deep/file").stdout == "640 other other\n"
    assert guest.get("/etc/deep/file") == content
    guest.put(root / "etc" / "group", "/etc/copy")
    assert guest.get("/etc/copy") == (root / "etc" / "group").read_bytes()
    assert guest.get("/etc/deep") is None
    assert guest.run("ls", "/etc/deep").stdout == "file\n"


def test_devices_and_processes_are_there_and_no_mount_stays(guest: Guest, root: Path) -> None:
    assert len(guest.run("head", "-c", "9", "/dev/zero").stdout) == 9
    assert guest.run("cat", "/proc/1/comm").stdout
    assert str(root) not in Path("/proc/self/mountinfo").read_text()
    assert list((root / "dev").iterdir()) == []
