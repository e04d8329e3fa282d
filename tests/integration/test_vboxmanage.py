"""How VBoxManage is told, and what is made of its ending: a program of that name says what it is to."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from machine.drivers.virtualbox.vboxmanage import VBoxFailed, VBoxManage
from machine.errors import PreflightError

RECORDED = Path(__file__).parents[1] / "unit" / "recorded" / "virtualbox"


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder: what a program called VBoxManage was told, one file a call, and what it is to say in
    a file ``say`` (a script)."""
    program = tmp_path / "bin" / "VBoxManage"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\ncd {tmp_path}\nn=$(ls calls | wc -l)\nprintf "%s\\n" "$@" > calls/$n\n. ./say\n'
    )
    program.chmod(0o755)
    (tmp_path / "calls").mkdir()
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return tmp_path


def calls(folder: Path) -> Sequence[list[str]]:
    numbers = sorted((folder / "calls").iterdir(), key=lambda path: int(path.name))
    return [path.read_text().splitlines() for path in numbers]


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("6.1.50r1", ["--nictype1", "virtio", "--uartmode2", "file", "x", "--memory", "512"]),
        ("7.0.2r1", ["--nic-type1", "virtio", "--uart-mode2", "file", "x", "--memory", "512"]),
        ("8.0.0r1", ["--nic-type1", "virtio", "--uart-mode2", "file", "x", "--memory", "512"]),
    ],
)
def test_a_setting_is_spelt_for_the_version(told: Path, version: str, words: list[str]) -> None:
    (told / "say").write_text(f"echo {version}")
    VBoxManage().modify("vm", ("nic_type1", "virtio"), ("uart_mode2", "file", "x"), ("memory", 512))
    assert calls(told)[-1] == ["modifyvm", "vm", *words]


LOCKED = RECORDED / "7.0" / "locked.stderr.documented.txt"


def test_a_locked_machine_is_asked_for_again(told: Path) -> None:
    (told / "say").write_text(f"[ $n -ge 3 ] || {{ cat {LOCKED} >&2; exit 1; }}")
    VBoxManage().control("vm", "pause")
    assert len(calls(told)) == 4


def test_a_machine_that_stays_locked_is_told_with_its_remedy(
    told: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("machine.drivers.virtualbox.vboxmanage.LOCKED", 0.5)
    (told / "say").write_text(f"cat {LOCKED} >&2; exit 1")
    with pytest.raises(VBoxFailed) as failed:
        VBoxManage().control("vm", "pause")
    assert failed.value.code == "VBOX_E_INVALID_OBJECT_STATE"
    assert "already locked by a session" in failed.value.brief
    assert "Another program holds the machine" in failed.value.hint
    assert failed.value.details.startswith("$ VBoxManage controlvm vm pause\nVBoxManage: error:")


def test_other_errors_are_not_repeated(told: Path) -> None:
    (told / "say").write_text(f"cat {RECORDED}/7.2/startvm.stderr.txt >&2; exit 1")
    with pytest.raises(VBoxFailed) as failed:
        VBoxManage().start("vm", "headless")
    assert len(calls(told)) == 1
    assert failed.value.brief.startswith("VirtualBox: The virtual machine 'w1' has terminated")


@pytest.mark.parametrize("said", ["echo hello", "echo 7.2; exit 3", "echo not found >&2; exit 127"])
def test_garbage_in_place_of_a_version(told: Path, said: str) -> None:
    (told / "say").write_text(said)
    with pytest.raises(PreflightError) as refused:
        _ = VBoxManage().version
    assert "did not tell its version" in refused.value.brief
