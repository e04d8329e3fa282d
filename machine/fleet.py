"""A fleet's file, machines.toml: read, its variables filled in, checked, and expanded into machines."""

from __future__ import annotations

import difflib
import graphlib
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from machine import flags, registry
from machine import template as templates
from machine.errors import (
    BadName,
    BadOption,
    DriverNotFound,
    FleetError,
    MachineError,
    TemplateError,
)
from machine.fleet_keys import (
    DEFAULTS,
    ENGINE,
    MACHINE,
    NAME,
    REFERENCE,
    TOP,
    VARIABLE,
    Kind,
    problem,
)
from machine.model import EngineOptions, Setup
from machine.store import check_name
from machine.template import HostTemplate
from machine.tomlfile import TomlFile, unknown

DRIVER: Final = "libvirt"
"""Of machines whose table does not say, nor the defaults, nor MACHINE_DRIVER."""
PREFIX: Final = "MACHINE_VAR_"
OWN: Final = ("n", "name", "folder")
"""Variables that are there without being declared: a machine's number and name, the file's folder."""


@dataclass(frozen=True, slots=True)
class FleetMachine:
    """One machine as the file wants it."""

    name: str
    table: str  # the key of its table
    driver: str
    template: HostTemplate
    options: Mapping[str, Any] = field(default_factory=dict)  # the driver's, by key
    engine: EngineOptions = field(default_factory=EngineOptions)
    needs: tuple[str, ...] = ()  # names of machines
    swarm: str = ""  # "": membership is left alone
    node_labels: Mapping[str, str] = field(default_factory=dict)
    push: tuple[str, ...] = ()  # archives of images
    setup: Setup = Setup.INSTALL
    open_firewall: bool | None = None
    context: bool = False
    ssh_config: bool = False
    layers: bool = True
    warm: bool = False


@dataclass(frozen=True, slots=True)
class Fleet:
    name: str
    path: Path
    machines: tuple[FleetMachine, ...]

    def named(self, word: str) -> list[str]:
        """The machines that a word stands for: one's own name, or its table's."""
        return [each.name for each in self.machines if word in (each.name, each.table)]


def read(path: Path, given: Mapping[str, str] | None = None) -> Fleet:
    """``given`` are values for variables, in text. Raises FleetError, with line and key where it is
    the file's; BadOption for a variable that is not declared or cannot have that value."""
    file = TomlFile.read(path, FleetError)
    for key, value in file.values.items():
        if wrong := problem(key, value, TOP):
            raise file.mistake((key,), wrong)
    name = file.values.get("name", "")
    if not NAME.fullmatch(name):
        raise file.mistake(
            ("name",),
            f"is {name!r}, and must be a word of a-z, 0-9 and -",
            'Its machines\' records keep it: choose one that stays, as name = "lab"',
        )
    values = {"folder": str(path.absolute().parent), **_variables(file, given or {})}
    machines = _Reader(file, values).machines()
    return Fleet(name, path, tuple(machines))


def _variables(file: TomlFile, given: Mapping[str, str]) -> dict[str, Any]:
    declared = file.values.get("variables", {})
    for key, value in declared.items():
        if key in OWN or not REFERENCE.fullmatch(f"${{{key}}}"):
            why = "is taken" if key in OWN else f"must be as {VARIABLE}"
            raise file.mistake(("variables", key), f"the name of a variable {why}")
        if not isinstance(value, str | int | bool):
            raise file.mistake(
                ("variables", key), f"is {value!r}, and must be text, a whole number or a truth"
            )
    for key in given:
        if key not in declared:
            raise BadOption(f"--set {key}: {unknown(key, declared)}", hint=_listed(declared))
    found = dict(declared)
    for key, default in declared.items():
        if key in given:
            found[key] = _typed(given[key], default, f"--set {key}")
        elif (text := os.environ.get(f"{PREFIX}{key}")) is not None:
            found[key] = _typed(text, default, f"{PREFIX}{key}")
    return found


def _listed(names: Collection[str]) -> str:
    return f"There are: {', '.join(sorted(names))}" if names else "The file declares no variables"


def _typed(text: str, default: object, where: str) -> Any:
    """As the type of the variable's default. Raises BadOption."""
    if isinstance(default, bool):
        if text not in ("true", "false"):
            raise BadOption(f"{where} is {text!r}, and must be true or false")
        return text == "true"
    if isinstance(default, int):
        try:
            return int(text)
        except ValueError:
            raise BadOption(f"{where} is {text!r}, and must be a whole number") from None
    return text


class _Reader:
    """One file's tables, on their way to machines."""

    def __init__(self, file: TomlFile, variables: Mapping[str, Any]) -> None:
        self._file = file
        self._variables = variables
        self._tables: dict[str, list[str]] = {}

    def machines(self) -> list[FleetMachine]:
        self._check(("defaults",), self._filled(("defaults",), self._defaults(), strict=False))
        found: dict[str, FleetMachine] = {}
        for table, values in self._file.values.get("machines", {}).items():
            if not isinstance(values, dict):
                raise self._wrong((table,), f"is {values!r}, and must be a table")
            for machine in self._expanded(table):
                if machine.name in found:
                    other = found[machine.name].table
                    raise self._wrong(
                        (table,),
                        f'the name "{machine.name}" is that of a machine of "{other}" already',
                    )
                found[machine.name] = machine
                self._tables.setdefault(table, []).append(machine.name)
        if not found:
            raise self._file.mistake(("machines",), "there are none")
        machines = [replace(each, needs=self._needs(each)) for each in found.values()]
        self._check_order(machines)
        self._check_swarm(machines)
        return machines

    def _expanded(self, table: str) -> list[FleetMachine]:
        count = self._count(table)
        one = count is None
        return [
            self._machine(table, number, one=one) for number in range(1, (count or 0) + 1 + one)
        ]

    def _count(self, table: str) -> int | None:
        """None for a single machine, whose name gets no number."""
        values = self._file.values["machines"][table]
        if "count" not in values:
            return None
        count = self._filled(("machines", table, "count"), values["count"])
        if wrong := problem("count", count, MACHINE):
            raise self._wrong((table, "count"), wrong)
        return int(count)

    def _machine(self, table: str, number: int, *, one: bool) -> FleetMachine:
        at = ("machines", table)
        own = {**self._variables, "n": number}
        name = self._filled(at, table, own)
        if name == table and not one:
            name = f"{table}{number}"
        try:
            check_name(name)
        except BadName as exc:
            raise self._wrong((table,), f"{name!r} is no name of a machine", exc.brief) from None
        own["name"] = name
        values = self._filled(at, self._file.values["machines"][table], own)
        self._check(at, values)
        values = _laid(self._filled(("defaults",), self._defaults(), own), values)
        driver = values.get("driver") or os.environ.get("MACHINE_DRIVER") or DRIVER
        self._require_driver(at, driver)
        setup = Setup(values.get("setup", Setup.INSTALL))
        engine, folder = _engine(values), self._file.path.absolute().parent
        if setup is not Setup.INSTALL and replace(engine, tls_sans=()) != EngineOptions():
            raise self._wrong(
                (table, "setup"), f'"{setup}" leaves the engine as it is: give no options of it'
            )
        return FleetMachine(
            name=name,
            table=table,
            driver=driver,
            template=self._template(at, values),
            options=self._options(driver, values.get(driver, {})),
            engine=engine,
            needs=tuple(values.get("needs", ())),
            swarm=values.get("swarm", ""),
            node_labels=values.get("node_labels", {}),
            push=tuple(str(folder / Path(each).expanduser()) for each in values.get("push", ())),
            setup=setup,
            open_firewall=values.get("open_firewall"),
            **{key: values[key] for key in _SWITCHES if key in values},
        )

    def _defaults(self) -> dict[str, Any]:
        defaults: dict[str, Any] = self._file.values.get("defaults", {})
        return defaults

    def _check(self, at: tuple[str, ...], values: Mapping[str, Any]) -> None:
        """Every key of one table of machines; tables that are none of ours are drivers'."""
        keys = MACHINE if at[0] == "machines" else DEFAULTS
        for key, value in values.items():
            if isinstance(value, dict) and key not in MACHINE:
                templates.check_driver(self._file, (*at, key), value)
                self._check_secrets((*at, key), value)
            elif wrong := problem(key, value, keys):
                raise self._file.mistake((*at, key), wrong)
        for key, value in values.get("engine", {}).items():
            if wrong := problem(key, value, ENGINE):
                raise self._file.mistake((*at, "engine", key), wrong)

    def _require_driver(self, at: tuple[str, ...], driver: str) -> None:
        try:
            registry.driver(driver)
        except DriverNotFound as exc:
            known = registry.names("machine.drivers", registry.DRIVERS)
            close = difflib.get_close_matches(driver, known, 1)
            meant = f"; did you mean {close[0]}?" if close else ""
            raise self._file.mistake(
                (*at, "driver"), f'the driver "{driver}" is not there{meant}', exc.hint
            ) from None

    def _template(self, at: tuple[str, ...], values: Mapping[str, Any]) -> HostTemplate:
        name = values.get("template", "default")
        if name.endswith(".toml"):
            name = str(self._file.path.absolute().parent / Path(name).expanduser())
        try:
            found = templates.find(name)
        except TemplateError as exc:
            raise self._file.mistake((*at, "template"), exc.brief, exc.hint) from None
        return replace(found, **{key: values[key] for key in _SIZES if key in values})

    def _check_secrets(self, at: tuple[str, ...], table: Mapping[str, Any]) -> None:
        for key in _secrets(at[-1]):
            if table.get(key) and not flags.is_reference(table[key]):
                raise self._file.mistake(
                    (*at, key),
                    "a secret does not belong into this file",
                    "Say where it is: env:NAME, file:PATH, command:WORDS or keyring:SERVICE/USER",
                )

    def _options(self, driver: str, table: Mapping[str, Any]) -> dict[str, Any]:
        """The driver's own. The relative path of a secret's file counts from this file."""
        folder = self._file.path.absolute().parent
        named = {
            key: flags.within(table[key], folder) for key in _secrets(driver) if table.get(key)
        }
        return {**table, **named}

    def _needs(self, machine: FleetMachine) -> tuple[str, ...]:
        """Tables and names of machines, as names of machines."""
        names = {name for each in self._tables.values() for name in each}
        found: list[str] = []
        for word in machine.needs:
            if word not in self._tables and word not in names:
                close = difflib.get_close_matches(word, [*self._tables, *names], 1)
                meant = f"; did you mean {close[0]}?" if close else ""
                raise self._wrong((machine.table, "needs"), f'there is no "{word}"{meant}')
            found += self._tables.get(word, [word])
        return tuple(dict.fromkeys(found))

    def _check_order(self, machines: list[FleetMachine]) -> None:
        try:
            graphlib.TopologicalSorter({each.name: each.needs for each in machines}).prepare()
        except graphlib.CycleError as exc:
            ring = exc.args[1]
            table = next(each.table for each in machines if each.name == ring[-1])
            raise self._wrong(
                (table, "needs"), f"machines need each other: {' needs '.join(reversed(ring))}"
            ) from None

    def _check_swarm(self, machines: list[FleetMachine]) -> None:
        roles = {each.swarm for each in machines}
        for each in machines:
            if each.node_labels and each.swarm not in ("manager", "worker"):
                raise self._wrong(
                    (each.table, "node_labels"), "are of a node in the Swarm: say swarm = ..., too"
                )
            if each.swarm == "worker" and "manager" not in roles:
                raise self._wrong((each.table, "swarm"), "a Swarm needs a manager")

    def _filled(
        self,
        at: tuple[str, ...],
        value: Any,
        variables: Mapping[str, Any] | None = None,
        *,
        strict: bool = True,
    ) -> Any:
        """``value`` with its variables filled in. Text that is nothing but one variable becomes a
        number or a truth, where one has to be. ``strict`` is not where a machine's own variables
        are still to come."""
        known = self._variables if variables is None else variables
        if isinstance(value, dict):
            return {
                key: self._filled((*at, key), each, variables, strict=strict)
                for key, each in value.items()
            }
        if isinstance(value, list):
            return [self._filled(at, each, variables, strict=strict) for each in value]
        if not isinstance(value, str):
            return value

        def text(name: str) -> Any:
            if name in known:
                return known[name]
            if not strict and name in OWN:
                return 1 if name == "n" else name
            wrong = f"${{{name}}}: {unknown(name, [*known, *OWN])}"
            raise self._file.mistake(at, wrong.replace("key", "variable"))

        whole = REFERENCE.fullmatch(value)
        if whole and whole[1] and _keeps_type(at):
            return text(whole[1])
        return REFERENCE.sub(lambda found: _shown(text(found[1])) if found[1] else "$", value)

    def _wrong(self, keys: tuple[str, ...], wrong: str, hint: str = "") -> MachineError:
        return self._file.mistake(("machines", *keys), wrong, hint)


def _keeps_type(at: tuple[str, ...]) -> bool:
    """Whether a value may be something else than text: drivers see to their options themselves."""
    inside = at[2:] if at[0] == "machines" else at[1:]
    if not inside:
        return False
    key = MACHINE.get(inside[0])
    return key is None or key.kind in (Kind.NUMBER, Kind.YES)


_SIZES: Final = ("cpus", "memory_mib", "disk_gib")
_SWITCHES: Final = ("context", "ssh_config", "layers", "warm")


def _secrets(driver: str) -> tuple[str, ...]:
    """The options of a driver that hold where a secret is; none where it is not installed."""
    try:
        return flags.secret_keys(registry.driver(driver).config_type)
    except DriverNotFound:
        return ()


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _laid(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Later wins, tables merge, lists replace: as with templates."""
    found = dict(under)
    for key, value in over.items():
        below = found.get(key)
        both = isinstance(value, dict) and isinstance(below, dict)
        found[key] = _laid(below, value) if both else value  # type: ignore[arg-type]
    return found


def _engine(values: Mapping[str, Any]) -> EngineOptions:
    table = values.get("engine", {})

    def listed(key: str) -> tuple[str, ...]:
        return tuple(table.get(key, ()))

    return EngineOptions(
        labels=tuple(f"{key}={value}" for key, value in values.get("labels", {}).items()),
        insecure_registries=listed("insecure_registries"),
        registry_mirrors=listed("registry_mirrors"),
        storage_driver=table.get("storage_driver", ""),
        env=listed("env"),
        opts=listed("options"),
        tls_sans=listed("tls_sans"),
    )
