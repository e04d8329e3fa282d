"""JSON Schema of a fleet's file, by which an editor completes its keys and marks its mistakes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from machine import flags, registry
from machine.errors import MachineError
from machine.fleet_keys import DEFAULTS, ENGINE, MACHINE, NAME, TOP, VARIABLE, Key, Kind


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the file, with the options of every driver that is installed."""
    drivers = {name: _driver(name) for name in registry.names("machine.drivers", registry.DRIVERS)}
    tables = {name: table for name, table in drivers.items() if table}
    engine = _table(ENGINE)
    machine = _table(MACHINE, {"engine": engine, **tables})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A fleet of machine",
        "type": "object",
        "properties": {
            "name": {"type": "string", "pattern": f"^{NAME.pattern}$", **_said(TOP["name"])},
            "variables": {
                "type": "object",
                "propertyNames": {"pattern": f"^{VARIABLE}$"},
                "additionalProperties": {"type": ["string", "integer", "boolean"]},
                **_said(TOP["variables"]),
            },
            "defaults": {
                **_table(DEFAULTS, {"engine": engine, **tables}),
                **_said(TOP["defaults"]),
            },
            "machines": {
                "type": "object",
                "additionalProperties": machine,
                "minProperties": 1,
                **_said(TOP["machines"]),
            },
        },
        "required": ["name", "machines"],
        "additionalProperties": False,
    }


def _table(keys: Mapping[str, Key], tables: Mapping[str, Any] | None = None) -> dict[str, Any]:
    plain = {key: {**_shape(each), **_said(each)} for key, each in keys.items()}
    return {
        "type": "object",
        "properties": {**plain, **(tables or {})},
        "additionalProperties": False,
    }


def _said(key: Key) -> dict[str, str]:
    return {"description": key.help}


def _shape(key: Key) -> dict[str, Any]:
    match key.kind:
        case Kind.NUMBER:
            return _or_variable({"type": "integer", "minimum": key.low, "maximum": key.high})
        case Kind.YES:
            return _or_variable({"type": "boolean"})
        case Kind.TEXTS:
            return {"type": "array", "items": {"type": "string"}}
        case Kind.PAIRS:
            return {"type": "object", "additionalProperties": {"type": "string"}}
        case Kind.TABLE:
            return {"type": "object"}
        case Kind.TEXT if key.choices:
            return _or_variable({"enum": list(key.choices)})
        case Kind.TEXT:
            return {"type": "string"}


def _or_variable(shape: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [shape, {"type": "string", "pattern": rf"^\$\{{{VARIABLE}\}}$"}]}


def _driver(name: str) -> dict[str, Any]:
    """A driver's own table; nothing for one whose code cannot be loaded here."""
    try:
        options = flags.options(name, registry.driver(name).config_type)
    except MachineError:
        return {}
    return {
        "type": "object",
        "description": f"options of the {name} driver (machine create -d {name} --help)",
        "properties": {each.key: {**_option(each), "description": each.help} for each in options},
        "additionalProperties": False,
    }


def _option(option: flags.Option) -> dict[str, Any]:
    single: dict[str, Any] = {"type": _JSON.get(option.item, "string")}
    if option.low is not None:
        single["minimum"] = option.low
    if option.high is not None:
        single["maximum"] = option.high
    if option.choices:
        single = {"enum": ["", *option.choices]}
    if option.type is tuple:
        return {"type": "array", "items": single}
    return single if single == {"type": "string"} else _or_variable(single)


_JSON: Final = {int: "integer", bool: "boolean"}
