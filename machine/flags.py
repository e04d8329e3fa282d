"""Options declared once, on a frozen dataclass: flag, variables, template key, help and JSON."""

from __future__ import annotations

import dataclasses
import functools
import os
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeVar

from machine.errors import BadOption

if TYPE_CHECKING:
    from pathlib import Path

C = TypeVar("C")


def option(
    default: Any,
    help: str,
    *,
    env: tuple[str, ...] = (),
    metavar: str = "",
    low: int | None = None,
    high: int | None = None,
    choices: tuple[str, ...] = (),
    flag: str = "",
    secret: bool = False,
) -> Any:
    """A field that the user may set. ``env`` are further variable names (docker-machine's own);
    ``low`` and ``high`` bound a whole number, ``choices`` are the only texts that may be given.
    ``flag`` is docker-machine's own where it is not --DRIVER-FIELD. ``secret``: the field holds
    where the value is (``machine/secret.py``), never the value."""
    meta = {"help": help, "env": env, "metavar": metavar, "flag": flag, "secret": secret}
    return field(default=default, metadata={**meta, "low": low, "high": high, "choices": choices})


@dataclass(frozen=True, slots=True)
class Option:
    """One field of a driver's config, as the command line shows it."""

    key: str  # "boot_timeout": the field, and the template key
    flag: str  # "--libvirt-boot-timeout"
    env: tuple[str, ...]  # ("MACHINE_LIBVIRT_BOOT_TIMEOUT", ...): first one set wins
    item: type  # of a tuple's values; else as `type`
    type: type  # str, int, bool, or tuple for a flag that repeats
    default: Any
    help: str
    metavar: str
    low: int | None
    high: int | None
    choices: tuple[str, ...]
    secret: bool

    @property
    def variable(self) -> str:
        """The first of its variables that is set; "" if none is."""
        return next((name for name in self.env if os.environ.get(name)), "")


def options(driver: str, config_type: type[Any]) -> list[Option]:
    """The declared options of a driver's config dataclass, in order."""
    hints = typing.get_type_hints(config_type)
    found = []
    for each in fields(config_type):
        if "help" not in each.metadata:
            continue
        word = each.name.replace("_", "-")
        variable = f"MACHINE_{driver}_{each.name}".replace("-", "_").upper()
        found.append(
            Option(
                key=each.name,
                flag=each.metadata["flag"] or f"--{driver}-{word}",
                env=(variable, *each.metadata["env"]),
                type=_plain(hints[each.name]),
                item=_item(hints[each.name]),
                default=each.default,
                help=each.metadata["help"],
                metavar=each.metadata["metavar"]
                or "|".join(each.metadata["choices"])
                or ("REFERENCE" if each.metadata["secret"] else ""),
                low=each.metadata["low"],
                high=each.metadata["high"],
                choices=each.metadata["choices"],
                secret=each.metadata["secret"],
            )
        )
    return found


REFERENCES = ("env", "file", "command", "keyring")


def is_reference(text: str) -> bool:
    """Whether this says where a secret is: env:NAME, file:PATH, command:WORDS or
    keyring:SERVICE/USER. Anything else is taken for a secret itself."""
    kind, colon, rest = text.partition(":")
    return bool(colon and rest) and kind in REFERENCES


def within(reference: str, folder: Path) -> str:
    """The same reference for use anywhere: a file's relative path counts from ``folder``."""
    kind, _, rest = reference.partition(":")
    if kind != "file" or rest.startswith("~"):
        return reference
    return f"file:{folder / rest}"


def secret_keys(config_type: type[Any]) -> tuple[str, ...]:
    """The fields that hold references to secrets."""
    return _secret_keys(config_type)  # type: ignore[arg-type]


@functools.cache  # a listing asks for every machine
def _secret_keys(config_type: type[Any]) -> tuple[str, ...]:
    return tuple(each.name for each in fields(config_type) if each.metadata.get("secret"))


def build(
    driver: str, config_type: type[C], given: Mapping[str, Any], template: Mapping[str, Any]
) -> C:
    """A config from flags (``given``, by key), then variables, then the template's table.

    Values may be text or already typed. Of a secret that a variable has, the variable's name is
    taken. Raises BadOption naming the flag, variable or key.
    """
    values: dict[str, Any] = {}
    known = options(driver, config_type)
    for opt in known:
        if opt.key in given:
            values[opt.key] = typed(opt, given[opt.key], opt.flag)
            continue
        if variable := opt.variable:
            found = os.environ[variable]
            hidden = opt.secret and not is_reference(found)
            values[opt.key] = f"env:{variable}" if hidden else typed(opt, found, variable)
        elif opt.key in template:
            values[opt.key] = typed(opt, template[opt.key], f"[{driver}] {opt.key}")
    for name, where in ((given, "option"), (template, "template key")):
        unknown = set(name) - {opt.key for opt in known}
        if unknown:
            keys = ", ".join(opt.key for opt in known)
            raise BadOption(
                f"The {driver} driver has no {where} {sorted(unknown)[0]!r}",
                hint=f"It has: {keys}" if keys else "It has none.",
            )
    return config_type(**values)


def as_dict(config: Any) -> dict[str, Any]:
    """A config's or facts' values as JSON takes them."""
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in dataclasses.asdict(config).items()
    }


def from_dict(cls: type[C], values: Mapping[str, Any]) -> C:
    """The reverse of ``as_dict``; keys that a newer version wrote are left out."""
    types = _types(cls)  # type: ignore[arg-type]
    return cls(
        **{
            key: tuple(value) if types[key] is tuple else value
            for key, value in values.items()
            if key in types
        }
    )


@functools.cache  # a listing asks for every machine
def _types(cls: type[Any]) -> dict[str, type]:
    hints = typing.get_type_hints(cls)
    return {each.name: _plain(hints[each.name]) for each in fields(cls)}


def _plain(hint: Any) -> type:
    origin = typing.get_origin(hint)
    if origin is tuple:
        return tuple
    if origin is not None:  # int | None
        inner = [each for each in typing.get_args(hint) if each is not type(None)]
        return _plain(inner[0])
    return typing.cast("type", hint)


def _item(hint: Any) -> type:
    inner = typing.get_args(hint)
    return _plain(inner[0]) if _plain(hint) is tuple and inner else _plain(hint)


def typed(opt: Option, value: Any, where: str) -> Any:
    """A value as the option's type. ``where`` is how the user calls it: a flag, a variable, a key.
    Raises BadOption."""
    if opt.type is tuple:
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, list | tuple):
            raise _bad(where, value, "a list")
        return tuple(_single(opt, part, where) for part in parts)
    return _single(opt, value, where)


def _single(opt: Option, value: Any, where: str) -> Any:
    if opt.item is bool:
        if isinstance(value, bool):
            return value
        word = str(value).lower()
        if word in ("1", "true", "yes", "on"):
            return True
        if word in ("0", "false", "no", "off"):
            return False
        raise _bad(where, value, "true or false")
    if opt.item is int:
        try:
            if isinstance(value, bool):
                raise ValueError
            number = int(value)
        except (TypeError, ValueError):
            unit = f" ({opt.metavar})" if opt.metavar else ""
            raise _bad(where, value, f"a whole number{unit}") from None
        if (opt.low is not None and number < opt.low) or (
            opt.high is not None and number > opt.high
        ):
            most = f" and at most {opt.high}" if opt.high is not None else ""
            raise _bad(where, value, f"at least {opt.low}{most}")
        return number
    if isinstance(value, list | tuple | dict | bool):
        raise _bad(where, value, "text")
    if opt.choices and value not in ("", *opt.choices):
        raise _bad(where, value, f"one of {', '.join(opt.choices)}")
    return str(value)


def _bad(where: str, value: Any, want: str) -> BadOption:
    return BadOption(f"{where} is {value!r}, and must be {want}")
