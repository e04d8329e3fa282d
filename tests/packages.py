"""Packages made and installed as a user's would be, without asking an index."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
WHEELHOUSE = ROOT / ".venv" / "wheelhouse"
"""Our dependencies, and what builds us: put there by `make setup`."""


def known_to_git(folder: Path, *places: str) -> Path:
    """A copy of the files that git knows, as a clean clone has them; answers the folder."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *places],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    subprocess.run(
        ["tar", "-c", "--null", "--ignore-failed-read", "-T", "-", "-f", str(folder / "all.tar")],
        cwd=ROOT,
        input=listed.stdout,
        check=True,
    )
    subprocess.run(["tar", "-x", "-f", "all.tar"], cwd=folder, check=True)
    (folder / "all.tar").unlink()
    return folder


def wheel(source: Path, out: Path) -> Path:
    """Built from a folder that may be written to."""
    plain = ("--no-deps", "--no-build-isolation", "--no-index")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", *plain, "-w", str(out), str(source)],
        check=True,
    )
    (built,) = out.glob("*.whl")
    return built


def environment(folder: Path, *wanted: str | Path) -> Path:
    """A new virtual environment with these packages; answers its python."""
    python = folder / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    index = ("--no-index", "--find-links", str(WHEELHOUSE))
    subprocess.run(
        [str(python), "-m", "pip", "install", "-q", *index, *map(str, wanted)], check=True
    )
    return python
