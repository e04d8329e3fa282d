"""What every test stands on: no test touches the user's own store, cache or templates."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from machine import registry

ROOT = Path(__file__).parent.parent

hypothesis.settings.register_profile("machine", deadline=None)  # a timing is never a test
hypothesis.settings.load_profile("machine")


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home; every default folder of ours lies in it."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for variable in (
        "MACHINE_STORAGE_PATH",
        "MACHINE_CACHE_PATH",
        "MACHINE_DRIVER",
        "MACHINE_DEBUG",
        "MACHINE_PARALLEL",
        "LIBVIRT_DEFAULT_URI",
        "DOCKER_HOST",
        "DOCKER_TLS_VERIFY",
        "DOCKER_CERT_PATH",
        "DOCKER_MACHINE_NAME",
        "XDG_CACHE_HOME",
        "XDG_CONFIG_HOME",
        "XDG_DATA_HOME",
    ):
        monkeypatch.delenv(variable, raising=False)
    return home


@pytest.fixture(scope="session")
def plugin_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the third-party driver of tests/integration/plugin was installed by pip."""
    target = tmp_path_factory.mktemp("site")
    source = ROOT / "tests" / "integration" / "plugin"
    work = tmp_path_factory.mktemp("plugin-source")
    subprocess.run(["cp", "-R", f"{source}/.", str(work)], check=True)
    subprocess.run(
        f"{sys.executable} -m pip install -q --no-index --no-deps --no-build-isolation "
        f"--target {target} {work}",
        shell=True,
        check=True,
    )
    return target


@pytest.fixture
def folder_driver(plugin_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a driver that needs nothing; found through its entry point."""
    monkeypatch.syspath_prepend(str(plugin_path))
    monkeypatch.setenv("PYTHONPATH", str(plugin_path))
    registry.driver.cache_clear()
    yield "folder"
    registry.driver.cache_clear()
