"""`machine template` as a user meets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def template(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "machine", "template", *words],
        capture_output=True,
        text=True,
        env=os.environ,
        check=False,
        timeout=60,
    )


@pytest.fixture
def own(own_home: Path) -> Path:
    folder = own_home / ".config" / "machine" / "templates"
    folder.mkdir(parents=True)
    return folder


def test_every_promised_system_has_a_template() -> None:
    listed = template("ls")
    names = {line.split()[0] for line in listed.stdout.splitlines()[1:]}
    promised = {"debian-12", "debian-13", "ubuntu-24.04", "rocky-9", "alma-9", "alpine"}
    assert promised | {"opensuse-leap", "default"} <= names
    shown = json.loads(template("show", "alpine").stdout)["data"]
    assert (shown["image"], shown["bundle"]) == ("alpine-3.23", "static")


def test_a_broken_template_does_not_hide_the_others(own: Path) -> None:
    (own / "mine.toml").write_text('image = "debian-13"\n')
    (own / "broken.toml").write_text("imag = 5\n")
    listed = template("ls")
    assert listed.returncode == 0
    assert f"Warning: {own}/broken.toml:1: imag: unknown key; did you mean image?" in listed.stderr
    assert "mine" in listed.stdout
    assert "broken" not in listed.stdout


def test_a_drivers_table_is_held_against_its_declaration(own: Path, folder_driver: str) -> None:
    path = own / "mine.toml"
    path.write_text(f'image = "debian-13"\n\n[{folder_driver}]\nport = 5\ntags = ["a"]\n')
    assert template("validate", "mine").returncode == 0
    path.write_text(f'image = "debian-13"\n\n[{folder_driver}]\ntags = ["a"]\nport = 70000\n')
    for words in (("validate", "mine"), ("show", str(path))):
        ran = template(*words)
        assert ran.returncode == 2
        assert f"{path}:5: {folder_driver}.port: is 70000, and must be at least 1" in ran.stderr
        assert "Traceback" not in ran.stderr


def test_what_could_not_be_checked_is_said(own: Path) -> None:
    (own / "mine.toml").write_text('image = "elsewhere-1"\n[elsewhere]\nzone = 5\n')
    ran = template("validate", "mine")
    assert ran.returncode == 0
    assert "Not checked: [elsewhere]" in ran.stderr
    assert "Not known here: the image elsewhere-1" in ran.stderr
