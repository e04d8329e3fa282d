"""Host templates: short TOML files that say what a machine is, built on each other by `base`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from machine import flags, registry
from machine.errors import BadOption, DriverNotFound, TemplateError
from machine.model import BundleKind
from machine.paths import shipped_templates, user_templates
from machine.tomlfile import TomlFile, unknown

_RANGES: Final = {"cpus": (1, 255), "memory_mib": (256, 4 << 20), "disk_gib": (4, 64 << 10)}


@dataclass(frozen=True, slots=True)
class HostTemplate:
    """What a template says when all its bases are laid under it."""

    name: str
    path: Path
    image: str
    cpus: int = 1
    memory_mib: int = 1024
    disk_gib: int = 20
    user: str = "machine"
    engine: str = "docker"
    bundle: str = BundleKind.PACKAGES
    cloud_init: str = ""
    driver: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def names() -> list[str]:
    """Templates that can be named: the user's own and the shipped ones."""
    found = {path.stem for folder in _folders() for path in folder.glob("*.toml") if path.is_file()}
    return sorted(found)


def find(name: str) -> HostTemplate:
    """By name (the user's folder first) or by path. Raises TemplateError with file, line, key."""
    path = _locate(name, None)
    values = _merged(path, ())
    driver = {key: value for key, value in values.items() if isinstance(value, dict)}
    plain = {key: value for key, value in values.items() if not isinstance(value, dict)}
    if "image" not in plain:
        raise TemplateError(f"{path}: there is no `image`, neither here nor in a base")
    return HostTemplate(name=path.stem, path=path, driver=driver, **plain)


def unknown_drivers(template: HostTemplate) -> list[str]:
    """Drivers that it has options for and that are not installed here: nothing checked those."""
    installed = registry.names("machine.drivers", registry.DRIVERS)
    return [name for name in template.driver if name not in installed]


def _folders() -> tuple[Path, Path]:
    return user_templates(), shipped_templates()


def _locate(name: str, near: Path | None) -> Path:
    if name.endswith(".toml") or ("/" in name and near is None):
        path = Path(name).expanduser()
        if path.is_file():
            return path.absolute()
    if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._/-]*", name) and ".." not in name:
        for folder in (*([near] if near else []), *_folders()):
            if (folder / f"{name}.toml").is_file():
                return folder / f"{name}.toml"
    close = difflib.get_close_matches(name, names(), 1)
    raise TemplateError(
        f'There is no template "{name}"',
        hint=f"Did you mean {close[0]}?" if close else "machine template ls shows them",
    )


def _merged(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """The file over its bases: later wins, tables merge, lists replace."""
    file = _read(path)
    merged: dict[str, Any] = {}
    for base in file.values.pop("base", []):
        try:
            found = _locate(base, path.parent)
        except TemplateError as exc:
            raise file.mistake(("base",), exc.brief, exc.hint) from None
        if found in (*above, path):
            raise file.mistake(("base",), f"{base} is built on this template itself")
        _overlay(merged, _merged(found, (*above, path)))
    _overlay(merged, file.values)
    return merged


def _overlay(under: dict[str, Any], over: Mapping[str, Any]) -> None:
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(under.get(key), dict):
            _overlay(under[key], value)
        else:
            under[key] = value


def _read(path: Path) -> TomlFile:
    file = TomlFile.read(path, TemplateError)
    for key, value in file.values.items():
        if isinstance(value, dict) and key not in (*_KEYS, "base"):
            check_driver(file, (key,), value)
        elif problem := _problem(key, value):
            raise file.mistake((key,), problem)
    return file


def check_driver(file: TomlFile, at: tuple[str, ...], table: Mapping[str, Any]) -> None:
    """Hold a driver's table, which lies ``at`` these keys, against what that driver declares. A
    driver that is not installed is let pass, so that a template can be shared, unless its name looks
    like a slip."""
    name = at[-1]
    try:
        driver = registry.driver(name)
    except DriverNotFound:
        known = (*registry.names("machine.drivers", registry.DRIVERS), *_KEYS)
        if close := difflib.get_close_matches(name, known, 1, cutoff=0.8):
            raise file.mistake(at, f"unknown table; did you mean {close[0]}?") from None
        return
    options = {each.key: each for each in flags.options(name, driver.config_type)}
    for key, value in table.items():
        if key not in options:
            raise file.mistake((*at, key), unknown(key, options))
        try:
            flags.typed(options[key], value, "")
        except BadOption as exc:
            raise file.mistake((*at, key), exc.brief.strip()) from None


def _problem(key: str, value: object) -> str:
    """What is wrong with one plain key, or nothing."""
    if key == "base":
        listed = isinstance(value, list) and all(isinstance(each, str) for each in value)
        return "" if listed else f"is {value!r}, and must be a list of template names"
    if key not in _KEYS:
        return unknown(key, [*_KEYS, "base"])
    kind = _KEYS[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        return f"is {value!r}, and must be {'a whole number' if kind is int else 'text'}"
    if isinstance(value, int):
        low, high = _RANGES[key]
        if not low <= value <= high:
            return f"is {value}, and must be between {low} and {high}"
    if key == "user" and not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", str(value)):
        return f"is {value!r}, and must be a user name (useradd's rule: a-z, 0-9, _ and -)"
    if key == "bundle" and value not in list(BundleKind):
        return f"is {value!r}, and must be {' or '.join(BundleKind)}"
    if key == "engine" and value not in registry.ENGINES:
        engines = registry.names("machine.engines", registry.ENGINES)
        if value not in engines:
            return f"is {value!r}, and must be one that is installed: {', '.join(engines)}"
    return ""


_KEYS: Final = {
    each.name: {"int": int, "str": str}[str(each.type)]
    for each in fields(HostTemplate)
    if each.name not in ("name", "path", "driver")
}
