"""`machine resize`, over the driver that keeps its hosts in folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from machine.model import State
from machine.store import Store
from tests.integration.test_cli import machine
from tests.machines import made


def size(name: str) -> str:
    """What the machine's host was told."""
    file: Path = Store().folder(name).root / Store().load(name).ours.id / "size"
    return file.read_text() if file.exists() else ""


def test_the_host_and_the_record_have_it(stopped: str) -> None:
    ran = machine("resize", stopped, "--memory", "2048", "--disk", "30")
    assert (ran.returncode, ran.stdout) == (0, ""), ran.stderr
    assert "Changing it to 2048 MiB of memory, a disk of 30 GiB" in ran.stderr
    assert size(stopped) == "2048 30"
    block = Store().load(stopped).ours
    assert (block.cpus, block.memory_mib, block.disk_gib) == (1, 2048, 30)
    assert {**block.config, "port": 0} == {"port": 0, "memory": 2048, "disk_size": 30}
    assert machine("status", stopped).stdout == "Stopped\n"
    again = machine("resize", stopped, "--memory", "1024")
    assert again.returncode == 0, again.stderr
    assert Store().load(stopped).ours.disk_gib == 30


@pytest.mark.parametrize(
    ("words", "code", "lines"),
    [
        ((), 2, ["Error: Nothing is to be changed", "  Say what: --memory, --disk"]),
        (
            ("--cpus", "2"),
            2,
            [
                "Error: The folder driver cannot change a machine by --cpus",
                "  What it can change: --memory, --disk",
            ],
        ),
        (("--size", "t3.large", "--disk", "20"), 2, []),
        (("--disk", "5"), 2, ['Error: The disk of "s1" has 10 GiB, and only grows']),
        (("--memory", "1"), 2, []),
        (("--disk", "4096"), 1, ["Error: The folder is full"]),
    ],
)
def test_what_is_wrong_is_told_and_changes_nothing(
    stopped: str, words: tuple[str, ...], code: int, lines: list[str]
) -> None:
    before = Store().load(stopped).as_json()
    ran = machine("resize", stopped, *words)
    assert (ran.returncode, ran.stdout) == (code, "")
    assert set(lines) <= set(ran.stderr.splitlines())
    assert size(stopped) == ""
    assert Store().load(stopped).as_json() == before


def test_memory_that_there_is_not(stopped: str) -> None:
    record = Store().load(stopped)
    record.ours.config["room"] = 4096
    Store().save(record)
    refused = machine("resize", stopped, "--memory", "8192")
    assert refused.returncode == 3
    assert "8192 MiB of memory are asked for, and 4096 MiB are available" in refused.stderr
    assert machine("resize", stopped, "--memory", "4096").returncode == 0


def test_a_running_machine_is_left_alone_unless_it_is_to_be_restarted(host: str) -> None:
    refused = machine("resize", host, "--memory", "2048")
    assert refused.returncode == 1
    assert refused.stderr.splitlines() == [
        'Error: "f1" is Running, and has to be stopped to change its size',
        "  machine stop f1",
        "  or have it shut down and started again: add --restart",
    ]
    assert machine("status", host).stdout == "Running\n"
    assert size(host) == ""


def test_one_whose_create_has_not_ended(stopped: str) -> None:
    record = Store().load(stopped)
    record.ours.journal.finished = False
    Store().save(record)
    refused = machine("resize", stopped, "--memory", "2048")
    assert refused.returncode == 1
    assert f"machine create --resume {stopped}" in refused.stderr


def test_a_driver_that_cannot_says_so(own_home: Path) -> None:
    host = made("n1", "none", State.STOPPED)
    host.block.config = {"url": "tcp://127.0.0.1:2376"}
    host.save()
    ran = machine("resize", "n1", "--memory", "2048")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == "Error: The none driver cannot change a machine's size\n"
