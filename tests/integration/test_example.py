"""The example driver is the one that the documentation shows, and passes the contract."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from tests.packages import ROOT

EXAMPLE = ROOT / "examples" / "machine-driver-qemu"


def test_the_documentation_shows_its_files() -> None:
    text = (ROOT / "docs" / "drivers.md").read_text()
    shown = re.findall(r"^```(?:python|toml)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    names = ("machine_driver_qemu.py", "pyproject.toml", "test_machine_driver_qemu.py")
    assert shown == [(EXAMPLE / name).read_text() for name in names]


def test_it_passes_the_contract() -> None:
    """With pytest, as its author would run it."""
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "-p", "no:cacheprovider", "."],
        cwd=EXAMPLE,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{EXAMPLE}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout
