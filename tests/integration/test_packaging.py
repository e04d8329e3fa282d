"""The wheel holds what git holds, installs into an empty environment, and runs there."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLACES = ("machine/", "drivers/", "templates/", "runtime/")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the files that git knows, as a clean clone has them."""
    source = tmp_path_factory.mktemp("source")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    subprocess.run(
        ["tar", "-c", "--null", "--ignore-failed-read", "-T", "-", "-f", str(source / "all.tar")],
        cwd=ROOT,
        input=listed.stdout,
        check=True,
    )
    subprocess.run(["tar", "-x", "-f", "all.tar"], cwd=source, check=True)
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "-q",
            "--no-deps",
            "--no-build-isolation",
            "--no-index",
            "-w",
            str(out),
            str(source),
        ],
        check=True,
    )
    (built,) = out.glob("*.whl")
    return built


def test_the_wheel_holds_the_files_that_git_knows(wheel: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *PLACES],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    links = {"machine/drivers", "machine/templates", "machine/runtime"}
    wanted = {
        name if name.startswith("machine/") else f"machine/{name}"
        for name in listed
        if name and name not in links and (ROOT / name).exists()
    }
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == wanted


def test_it_runs_from_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    """Unpacked elsewhere, with this environment's dependencies and without the checkout."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n"
        "import machine; assert 'site' in machine.__file__, machine.__file__\n"
        "from machine.__main__ import run\n"
        "assert run(['template', 'ls']) == 0\n"
        "assert run(['create', '--help']) == 0\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert "debian-13" in ran.stdout
    assert "--libvirt-network" in ran.stdout
