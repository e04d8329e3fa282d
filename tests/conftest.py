"""What every test stands on: no test touches the user's own store, cache or templates."""

from __future__ import annotations

import io
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling

from machine import registry
from machine.runtime.bundle import BundleCache
from tests import engine_archive
from tests.artefact import CACHE

ROOT = Path(__file__).parent.parent
SYSTEM = "tests/e2e/system/"
LONGEST = (
    SYSTEM,
    "tests/integration/test_swarm.py",
    "tests/integration/test_rolling.py",
    "tests/integration/test_upgrade.py",
    "tests/integration/test_virtualbox.py",
)

hypothesis.settings.register_profile("machine", deadline=None)  # a timing is never a test
hypothesis.settings.load_profile("machine")


class ByModule(LoadScopeScheduling):  # type: ignore[misc]
    """A worker has a module at a time, and one of them all of libvirt's system mode: one libvirt with
    its layers is behind that."""

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        return SYSTEM if module.startswith(SYSTEM) else module


def pytest_configure() -> None:
    """A shell that starts us in the background has SIGINT ignored, by us and by all that we start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByModule:
    config.option.loadscopereorder = False  # it goes by the number of tests
    return ByModule(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first, lest all workers wait for one of them in the end."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))


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


@pytest.fixture(scope="session")
def docker(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The real docker program: this computer's, or else the one in the engine bundle."""
    found = shutil.which("docker")
    if found:
        return found
    work = tmp_path_factory.mktemp("docker")
    bundle = BundleCache(CACHE / "bundles").get("docker-debian-12")
    (member,) = [name for name, _ in bundle.files if "/docker.io_" in name]
    subprocess.run(["tar", "-xf", str(bundle.path), "-C", str(work), member], check=True)
    subprocess.run(["dpkg-deb", "-x", str(work / member), str(work / "root")], check=True)
    return str(work / "root" / "usr" / "bin" / "docker")


@pytest.fixture(scope="session")
def image_tar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A container image's file system made here: busybox, and nothing else."""
    path = tmp_path_factory.mktemp("image") / "root.tar"
    with tarfile.open(path, "w") as tar:
        tar.add("/bin/busybox", "bin/busybox")
        for name in ("sh", "cat", "echo", "hostname"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link, io.BytesIO())
    return path


@pytest.fixture(scope="session")
def static_archive() -> Path:
    return CACHE / engine_archive.FOLDER / engine_archive.NAME
