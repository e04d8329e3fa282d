"""The tests that every driver passes: subclass ``DriverContract`` in your own test suite.

class TestFolder(DriverContract):
    driver_type = FolderDriver

    def spec(self, tmp_path): ...      # only if create() looks at it
"""

from __future__ import annotations

import dataclasses
import inspect
import uuid
from pathlib import Path
from typing import Any, ClassVar

import pytest

from machine import flags
from machine.driver import Driver, HostRef
from machine.errors import Unsupported, WarmRefused
from machine.model import Address, Can, FirstBoot, Identity, Image, State, VmSpec

_VERBS = {
    "start": Can.POWER,
    "stop": Can.POWER,
    "kill": Can.KILL,
    "pause": Can.PAUSE,
    "resume": Can.PAUSE,
    "console": Can.CONSOLE,
    "snapshot": Can.SNAPSHOT,
    "snapshots": Can.SNAPSHOT,
    "restore": Can.SNAPSHOT,
    "delete_snapshot": Can.SNAPSHOT,
}
_NAMED = ("snapshot", "restore", "delete_snapshot")


class DriverContract:
    """What the core relies on. ``config`` are option values by key that make a usable host."""

    driver_type: ClassVar[type[Driver[Any, Any]]]
    config: ClassVar[dict[str, Any]] = {}

    def spec(self, tmp_path: Path) -> VmSpec:
        """What ``create`` is given; override for a driver that needs a real image."""
        image = Image(
            name="none",
            digest="0" * 64,
            arch="x86_64",
            os="debian",
            os_version="13",
            first_boot=FirstBoot.IDENTITY,
            disk=tmp_path / "disk.qcow2",
        )
        identity = Identity(
            hostname="contract",
            machine_id=uuid.uuid4().hex,
            user="machine",
            authorized_keys=(),
            host_key="",
            host_key_public="",
        )
        return VmSpec(1, 256, 1, image, identity)

    @pytest.fixture
    def driver(self, tmp_path: Path) -> Driver[Any, Any]:
        folder = tmp_path / "machines" / "contract"
        folder.mkdir(parents=True)
        cls = self.driver_type
        config = flags.build(cls.name, cls.config_type, self.config, {})
        return cls(HostRef("contract", str(uuid.uuid4()), folder), config, cls.facts_type())

    def test_its_config_and_facts_survive_the_record(self, driver: Driver[Any, Any]) -> None:
        for value in (driver.config, driver.facts):
            assert flags.from_dict(type(value), flags.as_dict(value)) == value

    def test_config_and_facts_are_frozen(self) -> None:
        for cls in (self.driver_type.config_type, self.driver_type.facts_type):
            assert dataclasses.is_dataclass(cls)
            assert cls.__dataclass_params__.frozen  # type: ignore[attr-defined]

    def test_every_option_has_a_flag_and_help(self) -> None:
        for option in flags.options(self.driver_type.name, self.driver_type.config_type):
            assert option.flag.startswith("--")
            assert option.help

    def test_flags_that_do_nothing_say_why(self) -> None:
        for flag, why in self.driver_type.ignored.items():
            assert flag.startswith("--")
            assert why

    def test_a_warm_start_is_said_and_had_or_neither(
        self, driver: Driver[Any, Any], tmp_path: Path
    ) -> None:
        for name in ("warm_inputs", "save_warm"):
            overridden = getattr(self.driver_type, name) is not getattr(Driver, name)
            assert overridden == (Can.WARM in self.driver_type.can)
        if Can.WARM not in driver.can:
            with pytest.raises(WarmRefused):
                driver.warm_inputs(self.spec(tmp_path))
            with pytest.raises(Unsupported):
                driver.save_warm(self.spec(tmp_path), tmp_path, b"")

    @pytest.mark.parametrize("verb", _VERBS)
    def test_abilities_are_what_is_overridden(self, verb: str) -> None:
        overridden = getattr(self.driver_type, verb) is not getattr(Driver, verb)
        assert overridden == (_VERBS[verb] in self.driver_type.can)

    @pytest.mark.parametrize("verb", _VERBS)
    def test_what_it_cannot_do_it_refuses(self, verb: str, driver: Driver[Any, Any]) -> None:
        if _VERBS[verb] not in driver.can:
            with pytest.raises(Unsupported):
                getattr(driver, verb)(*(["kept"] if verb in _NAMED else []))

    def test_a_host_that_was_never_made_is_missing(self, driver: Driver[Any, Any]) -> None:
        assert driver.state() is State.MISSING

    def test_memory_is_a_number_or_not_known(self, driver: Driver[Any, Any]) -> None:
        available = driver.memory_available()
        assert available is None or available >= 0

    def test_removing_what_was_never_made_is_fine(self, driver: Driver[Any, Any]) -> None:
        driver.remove()
        driver.remove()

    def test_its_life(self, driver: Driver[Any, Any], tmp_path: Path) -> None:
        spec = self.spec(tmp_path)
        saved: list[Any] = []
        driver._checkpoint = saved.append
        try:
            driver.create(spec)
            assert driver.state() in (State.RUNNING, State.STARTING)
            assert isinstance(driver.address(), Address)
            assert not saved or saved[-1] == driver.facts
            driver.create(spec)  # as after a kill
            driver.settle()
            driver.settle()
            assert type(driver).survey([driver])["contract"].state is driver.state()
            if Can.KILL in driver.can:
                driver.kill()
                driver.kill()
                assert driver.state() is State.STOPPED
        finally:
            driver.remove()
        assert driver.state() is State.MISSING
        driver.remove()

    def test_survey_answers_for_each_and_raises_for_none(self, driver: Driver[Any, Any]) -> None:
        seen = type(driver).survey([driver])
        assert set(seen) == {"contract"}

    def test_findings_can_be_asked_anywhere(self, tmp_path: Path) -> None:
        assert inspect.ismethod(self.driver_type.findings)
        for finding in self.driver_type.findings(tmp_path, frozenset(), fix=False):
            assert finding.level in ("ok", "warning", "error")
            assert finding.text
