"""The tests that every driver passes: subclass ``DriverContract`` in your own test suite.

class TestFolder(DriverContract):
    driver_type = FolderDriver
    config = {"root": "/somewhere"}    # options by key, where it cannot do without

    def spec(self, tmp_path): ...      # only if create() looks at its image

They make one host after the other, and wait for no guest: a disk with nothing on it will do. What a
driver cannot do (power, snapshots, a console) is not asked of it, only that it says so. Override
the fixture ``driver`` where an object takes more than options to make.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import uuid
from pathlib import Path
from typing import Any, ClassVar

import pytest

from machine import flags
from machine.driver import Driver, HostRef
from machine.errors import DriverError, Unsupported, WarmRefused
from machine.model import (
    Address,
    Can,
    FirstBoot,
    Identity,
    Image,
    Login,
    Size,
    Source,
    State,
    VmSpec,
)

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
    "resize": Can.RESIZE,
}
_ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "snapshot": ("kept",),
    "restore": ("kept",),
    "delete_snapshot": ("kept",),
    "resize": (Size(cpus=2),),
}
_NUMBERS = ("cpus", "memory_mib", "disk_gib")
_BOOTS = Can.IDENTITY | Can.CLOUD_INIT
_UP = (State.RUNNING, State.STARTING)
_ENGINE_PORT = 2376


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
        made_of = image if self.driver_type.source is Source.IMAGE else None
        return VmSpec(1, 256, 1, made_of, identity, engine_port=_ENGINE_PORT)

    def check(self, driver: Driver[Any, Any]) -> None:
        """As the core does before ``create``; override where this computer lacks what the check is
        for, and tests put something in its place."""
        driver.preflight()

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

    def test_no_two_options_share_a_flag_or_a_variable(self) -> None:
        options = flags.options(self.driver_type.name, self.driver_type.config_type)
        for names in (
            [*(option.flag for option in options), *map(_flag, self.driver_type.ignored)],
            [name for option in options for name in option.env],
        ):
            assert len(names) == len(set(names))

    def test_its_name_and_what_is_said_of_it_are_one_line(self) -> None:
        assert re.fullmatch(r"[a-z][a-z0-9-]*", self.driver_type.name)
        assert "\n" not in self.driver_type.experimental

    def test_a_host_of_an_image_can_be_booted_from_it_and_no_other(self) -> None:
        of_image = self.driver_type.source is Source.IMAGE
        assert bool(self.driver_type.can & _BOOTS) == of_image
        if not of_image:
            assert not self.driver_type.can & (Can.MEDIA | Can.WARM)

    def test_its_size_is_what_options_say(self, driver: Driver[Any, Any]) -> None:
        size = type(driver).size(driver.config)
        assert isinstance(size, Size)
        numbers = [getattr(size, name) for name in _NUMBERS]
        assert all(each is None or each > 0 for each in numbers)

    def test_what_it_resizes_are_parts_of_a_size(self) -> None:
        parts = {field.name for field in dataclasses.fields(Size)}
        assert self.driver_type.resizes <= parts
        assert bool(self.driver_type.resizes) == (Can.RESIZE in self.driver_type.can)

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
                getattr(driver, verb)(*_ARGUMENTS.get(verb, ()))

    def test_a_host_that_was_never_made_is_missing(self, driver: Driver[Any, Any]) -> None:
        assert driver.state() is State.MISSING

    def test_memory_is_a_number_or_not_known(self, driver: Driver[Any, Any]) -> None:
        available = driver.memory_available()
        assert available is None or available >= 0

    def test_removing_what_was_never_made_is_fine(self, driver: Driver[Any, Any]) -> None:
        driver.remove()
        driver.remove()

    def test_nothing_is_made_by_looking(self, driver: Driver[Any, Any]) -> None:
        try:
            self.check(driver)
            self.check(driver)
            reserved = driver.reserve(_ENGINE_PORT)
            assert driver.reserve(_ENGINE_PORT) == reserved
            assert driver.state() is State.MISSING
        finally:
            driver.remove()

    def test_how_it_is_logged_in_to(self, driver: Driver[Any, Any], tmp_path: Path) -> None:
        self.check(driver)
        ours = Login("machine", tmp_path / "known_hosts", (tmp_path / "id_ed25519",))
        login = driver.login(ours)
        assert login.known_hosts == ours.known_hosts
        assert login.user
        key = driver.host_key()
        assert not key or len(key.split()) >= 2
        folder = driver.certificates()
        assert folder is None or folder.is_absolute()

    def test_its_life(self, driver: Driver[Any, Any], tmp_path: Path) -> None:
        """In the core's order."""
        spec = self.spec(tmp_path)
        saved: list[Any] = []
        driver._checkpoint = saved.append
        try:
            self.check(driver)
            reserved = driver.reserve(_ENGINE_PORT)
            driver.create(spec)
            assert driver.state() in _UP
            assert reserved in (None, _address(driver))
            assert not saved or saved[-1] == driver.facts
            self._is_known_to_the_next_process(driver)
            driver.create(spec)  # as after a kill
            assert driver.state() in _UP
            driver.connect()
            driver.connect()
            driver.settle()
            driver.settle()
            assert isinstance(driver.explain(), str)
            assert type(driver).survey([driver])["contract"].state is driver.state()
            self._tells_what_it_takes(driver)
            if Can.CONSOLE in driver.can:
                text, end = driver.console()
                assert end >= len(text)
                assert driver.console(end)[1] >= end
            if Can.KILL in driver.can:
                driver.kill()
                driver.kill()
                assert driver.state() is State.STOPPED
                self._changes_size(driver, spec)
                self._keeps_states(driver)
                self._starts(driver)
        finally:
            driver.remove()
        assert driver.state() is State.MISSING
        driver.remove()

    def _is_known_to_the_next_process(self, driver: Driver[Any, Any]) -> None:
        """What was saved is enough."""
        facts = flags.from_dict(type(driver.facts), flags.as_dict(driver.facts))
        again = type(driver)(driver.host, driver.config, facts)
        assert again.state() in _UP
        assert _address(again) == _address(driver)

    def _tells_what_it_takes(self, driver: Driver[Any, Any]) -> None:
        """As far as it does."""
        for name, usage in type(driver).usage([driver]).items():
            assert name == "contract"
            assert usage.cpu_seconds is None or usage.cpu_seconds >= 0
            assert usage.cpus is None or usage.cpus > 0
            for amount in (usage.memory, usage.disk):
                assert amount is None or amount.used >= 0

    def _keeps_states(self, driver: Driver[Any, Any]) -> None:
        """Of a machine that is off."""
        if Can.SNAPSHOT not in driver.can:
            return
        assert list(driver.snapshots()) == []
        for name in ("first", "second"):
            driver.snapshot(name)
            with pytest.raises(DriverError):
                driver.snapshot(name)
        assert [each.name for each in driver.snapshots()] == ["first", "second"]
        driver.restore("first")
        driver.restore("second")
        with pytest.raises(DriverError):
            driver.restore("nosuch")
        driver.delete_snapshot("first")
        for verb in (driver.delete_snapshot, driver.restore):
            with pytest.raises(DriverError):
                verb("first")
        assert [each.name for each in driver.snapshots()] == ["second"]

    def _changes_size(self, driver: Driver[Any, Any], spec: VmSpec) -> None:
        """Of a machine that is off. Kinds are the provider's own: its tests know them."""
        larger = {part: getattr(spec, part) * 2 for part in driver.resizes & set(_NUMBERS)}
        if not larger:
            return
        for _ in range(2):
            options = driver.resize(Size(**larger))
        size = type(driver).size(dataclasses.replace(driver.config, **options))
        assert {part: getattr(size, part) for part in larger} == larger
        assert driver.state() is State.STOPPED

    def _starts(self, driver: Driver[Any, Any]) -> None:
        if Can.POWER in driver.can:
            driver.start()
            driver.start()
            assert driver.state() in _UP

    def test_survey_answers_for_each_and_raises_for_none(self, driver: Driver[Any, Any]) -> None:
        other = type(driver)(
            dataclasses.replace(driver.host, name="other", id=str(uuid.uuid4())),
            driver.config,
            driver.facts,
        )
        seen = type(driver).survey([driver, other])
        assert set(seen) == {"contract", "other"}
        assert {each.state for each in seen.values()} == {State.MISSING}
        assert type(driver).survey([]) == {}
        assert type(driver).usage([driver, other]) == {}
        assert type(driver).usage([]) == {}

    def test_findings_can_be_asked_anywhere(self, tmp_path: Path) -> None:
        assert inspect.ismethod(self.driver_type.findings)
        for finding in self.driver_type.findings(tmp_path, frozenset(), fix=False):
            assert finding.level in ("ok", "warning", "error")
            assert finding.text


def _flag(ignored: str) -> str:
    return ignored.split()[0]


def _address(driver: Driver[Any, Any]) -> Address | None:
    """None where the provider has none to tell yet."""
    try:
        return driver.address()
    except DriverError:
        if driver.source is not Source.PROVIDER:
            raise
        return None
