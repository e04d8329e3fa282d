"""`machine drivers`: what is there, from where, and what is broken beside it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from machine import __version__
from tests.integration.test_cli import machine

EXPERIMENTAL = """
from machine_driver_folder import FolderDriver


class Trial(FolderDriver):
    name = "trial"
    experimental = "it never ran against a real provider, only against folders"
"""
BROKEN = {
    "absent": ("machine_driver_other.absent", "ModuleNotFoundError: No module named 'absent_sdk'"),
    "number": ("machine_driver_other:NUMBER", 'The driver "number" is none: 7 is not made from'),
    "wrong": ("machine_driver_other.wrong", "SyntaxError: "),
}


@pytest.fixture
def others(folder_driver: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A further distribution: one driver that is experimental, and several that are broken."""
    site = tmp_path / "site"
    package = site / "machine_driver_other"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(EXPERIMENTAL + "\n\nNUMBER = 7\n")
    (package / "absent.py").write_text("import absent_sdk\n")
    (package / "wrong.py").write_text("def of(\n")
    described = site / "machine_driver_other-2.5.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Name: machine-driver-other\nVersion: 2.5\n")
    entries = {name: target for name, (target, _) in BROKEN.items()}
    entries["trial"] = "machine_driver_other:Trial"
    lines = [f"{name} = {target}" for name, target in entries.items()]
    (described / "entry_points.txt").write_text("\n".join(["[machine.drivers]", *lines]) + "\n")
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)


def test_every_driver_is_listed_with_where_it_comes_from(folder_driver: str) -> None:
    listed = machine("drivers")
    rows = {line.split()[0]: line for line in listed.stdout.splitlines()}
    assert (listed.returncode, listed.stderr) == (0, "")
    assert rows["NAME"].split() == ["NAME", "STATUS", "FROM", "HOSTS", "CAN"]
    assert f"machine-vm {__version__}" in rows["libvirt"]
    assert "made from an image" in rows["libvirt"]
    assert "machine-driver-folder 1.0" in rows["folder"]
    assert "start, stop, kill" in rows["folder"]


def test_what_is_broken_is_listed_and_hides_nothing(others: None) -> None:
    listed = machine("drivers")
    assert (listed.returncode, listed.stderr) == (0, "")
    rows = {line.split()[0]: line for line in listed.stdout.splitlines()}
    assert rows["trial"].split()[1] == "experimental"
    for name, (_, problem) in BROKEN.items():
        assert rows[name].split()[1] == "broken"
        assert "machine-driver-other 2.5" in rows[name]
        assert problem in rows[name]
    as_json = json.loads(machine("drivers", "--output", "json").stdout)
    assert (as_json["schema"], as_json["kind"]) == (1, "drivers")
    data = {each["name"]: each for each in as_json["data"]}
    assert set(rows) - {"NAME"} == set(data)
    assert data["trial"]["experimental"].startswith("it never ran")
    assert data["folder"] == {
        "name": "folder",
        "package": "machine-driver-folder 1.0",
        "source": "image",
        "can": ["power", "kill", "identity", "snapshot", "resize"],
        "experimental": "",
        "problem": "",
    }


def test_a_broken_driver_is_told_where_it_is_used_and_there_alone(others: None, host: str) -> None:
    for words in (("create", "-d", "absent", "a"), ("drivers", "absent")):
        refused = machine(*words)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert refused.stderr.splitlines() == [
            'Error: The plugin "absent" of machine-driver-other 2.5 cannot be loaded',
            "  ModuleNotFoundError: No module named 'absent_sdk'",
            "  Install it again, or remove it: python -m pip uninstall machine-driver-other",
        ]
    assert machine("status", host).stdout == "Running\n"


def test_one_driver_is_shown_in_full(others: None) -> None:
    shown = machine("drivers", "trial").stdout.splitlines()
    assert "From:          machine-driver-other 2.5" in shown
    why = "it never ran against a real provider, only against folders"
    assert f"Experimental:  {why}" in shown
    missing = machine("drivers", "nosuch")
    assert missing.returncode == 1
    assert 'Driver "nosuch" not found.' in missing.stderr


def test_help_shows_a_drivers_own_options_apart(others: None) -> None:
    text = " ".join(machine("create", "-d", "trial", "--help").stdout.split())
    assert "The trial driver is experimental: it never ran against a real provider" in text
    general, own = text.split("Options of trial:")
    assert "--template" in general
    assert "--trial-root" not in general
    assert "--trial-root" in own
    assert "--libvirt" not in text
    assert "experimental:" not in machine("create", "-d", "folder", "--help").stdout
