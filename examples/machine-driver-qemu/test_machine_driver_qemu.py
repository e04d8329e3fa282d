"""What every driver is held to: python -m pytest, where machine-vm and pytest are installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from machine.command import run
from machine.model import VmSpec
from machine.testing.contract import DriverContract
from machine_driver_qemu import QemuDriver


class TestQemuDriver(DriverContract):
    driver_type = QemuDriver
    config: ClassVar[dict[str, Any]] = {"accel": "tcg"}

    def spec(self, tmp_path: Path) -> VmSpec:
        """A VM with an empty disk: the contract waits for no guest."""
        spec = super().spec(tmp_path)
        run("qemu-img", "create", "-f", "qcow2", spec.booted.disk, "1M")
        return spec
