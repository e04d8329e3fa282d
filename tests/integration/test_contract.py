"""A third-party driver, installed by pip, found by its entry point, passing the contract."""

from __future__ import annotations

from typing import Any

import pytest

from machine import registry
from machine.driver import Driver
from machine.errors import DriverNotFound
from machine.testing.contract import DriverContract


class TestFolderDriver(DriverContract):
    @pytest.fixture(autouse=True)
    def installed(self, folder_driver: str) -> None:
        """Every test of the contract needs the package."""

    @property
    def driver_type(self) -> type[Driver[Any, Any]]:  # type: ignore[override]
        return registry.driver("folder")


def test_without_the_package_it_is_not_found() -> None:
    with pytest.raises(DriverNotFound, match='Driver "folder" not found') as caught:
        registry.driver("folder")
    assert "libvirt" in caught.value.hint
