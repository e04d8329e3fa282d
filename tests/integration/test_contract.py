"""The contract over drivers of every kind: a third party's, installed by pip and found by its entry
point, and those whose hosts are there before."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from machine import keys, registry, wait
from machine.driver import Driver
from machine.drivers.generic.driver import GenericDriver
from machine.drivers.none import NoneDriver
from machine.errors import DriverNotFound
from machine.testing.contract import DriverContract

ROOT = Path(__file__).parents[2]


class TestFolderDriver(DriverContract):
    @pytest.fixture(autouse=True)
    def installed(self, folder_driver: str) -> None:
        """Every test of the contract needs the package."""

    @property
    def driver_type(self) -> type[Driver[Any, Any]]:  # type: ignore[override]
        return registry.driver("folder")


class TestNoneDriver(DriverContract):
    driver_type = NoneDriver
    config: ClassVar[dict[str, Any]] = {"url": "tcp://127.0.0.1:2376"}


class TestGenericDriver(DriverContract):
    driver_type = GenericDriver

    @pytest.fixture(autouse=True)
    def sshd(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """A host with SSH."""
        pair = keys.ed25519()
        (tmp_path / "host_key").write_text(pair.private)
        (tmp_path / "authorized_keys").write_text(keys.ed25519().public)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        config = {"ip_address": "127.0.0.1", "ssh_port": port, "host_key": pair.public}
        monkeypatch.setattr(type(self), "config", config)
        words = ("-m", "tests.e2e.sshd", "127.0.0.1", str(port), str(tmp_path))
        with subprocess.Popen([sys.executable, *words], cwd=ROOT) as server:
            wait.until("sshd", (tmp_path / "listening").exists, timeout=60)
            yield
            server.terminate()


def test_without_the_package_it_is_not_found() -> None:
    with pytest.raises(DriverNotFound, match='Driver "folder" not found') as caught:
        registry.driver("folder")
    assert "libvirt" in caught.value.hint
