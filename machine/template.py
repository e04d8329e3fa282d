"""Host templates: short TOML files that say what a machine is, built on each other by `base`."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from machine.errors import TemplateError
from machine.model import BundleKind
from machine.paths import shipped_templates, user_templates

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
        f'There is no template "{name}"' + (f", named as a base in {near}" if near else ""),
        hint=f"Did you mean {close[0]}?" if close else "machine template ls shows them",
    )


def _merged(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """The file over its bases: later wins, tables merge, lists replace."""
    if path in above:
        raise TemplateError(f"{path}: it is its own base, by way of {above[-1].name}")
    values = _read(path)
    bases = values.pop("base", [])
    merged: dict[str, Any] = {}
    for base in bases:
        _overlay(merged, _merged(_locate(base, path.parent), (*above, path)))
    _overlay(merged, values)
    return merged


def _overlay(under: dict[str, Any], over: Mapping[str, Any]) -> None:
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(under.get(key), dict):
            _overlay(under[key], value)
        else:
            under[key] = value


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise TemplateError(f"{path}: {exc}") from None
    except (OSError, UnicodeDecodeError) as exc:
        raise TemplateError(f"{path} cannot be read: {exc}") from exc
    for key, value in values.items():
        problem = _problem(key, value)
        if problem:
            raise TemplateError(f"{path}:{_line(text, key)}: {key}: {problem}")
    return values


def _problem(key: str, value: object) -> str:
    """What is wrong with one key of a file, or nothing. A table holds a driver's options, which
    the driver's own declaration checks when it is chosen."""
    if key == "base":
        listed = isinstance(value, list) and all(isinstance(each, str) for each in value)
        return "" if listed else "must be a list of template names"
    if isinstance(value, dict):
        return ""
    known = {each.name: each for each in fields(HostTemplate)}
    for name in ("name", "path", "driver"):
        known.pop(name)
    if key not in known:
        close = difflib.get_close_matches(key, [*known, "base"], 1)
        return "unknown key" + (f"; did you mean {close[0]}?" if close else "")
    kind = {"int": int, "str": str}[str(known[key].type)]
    if not isinstance(value, kind) or isinstance(value, bool):
        return f"is {value!r}, and must be {'a whole number' if kind is int else 'text'}"
    if isinstance(value, int):
        low, high = _RANGES[key]
        if not low <= value <= high:
            return f"is {value}, and must be between {low} and {high}"
    if key == "bundle" and value not in list(BundleKind):
        return f"is {value!r}, and must be {' or '.join(BundleKind)}"
    if key == "user" and not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", str(value)):
        return f"is {value!r}, and must be a user name (useradd's rule: a-z, 0-9, _ and -)"
    return ""


def _line(text: str, key: str) -> int:
    """The line that a top-level key stands on."""
    for number, line in enumerate(text.splitlines(), start=1):
        if re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=", line):
            return number
    return 1
