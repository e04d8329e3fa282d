"""The wheel holds what git holds, installs into an empty environment, and runs there."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests import packages

ROOT = Path(__file__).parents[2]
PLACES = ("machine/", "drivers/", "templates/", "runtime/")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packages.known_to_git(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packages.wheel(source, tmp_path_factory.mktemp("wheel"))


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


@pytest.fixture(scope="module")
def sdist(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sdist")
    subprocess.run(
        [sys.executable, "-m", "build", "--sdist", "--no-isolation", "-o", str(out), str(source)],
        check=True,
        capture_output=True,
    )
    (built,) = out.glob("*.tar.gz")
    return built


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_it_installs_into_an_empty_environment_and_runs(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    package = request.getfixturevalue(kind)
    python = packages.environment(tmp_path / "env", f"{package}[libvirt]")
    ran = subprocess.run(
        ["sh", "-ec", "machine --version; machine template ls; machine create -d libvirt --help"],
        cwd=tmp_path,
        env={"PATH": f"{python.parent}:/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "debian-13" in ran.stdout
    assert "--libvirt-network" in ran.stdout
    where = "import machine.drivers.libvirt.driver as d, libvirt; print(d.__file__)"
    shown = subprocess.run(
        [str(python), "-c", where], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert shown.stdout.startswith(str(tmp_path / "env"))
