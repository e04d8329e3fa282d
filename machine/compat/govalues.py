"""Values as Go's templates print, encode and compare them."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final


def text(value: Any, *, inside: bool = False) -> str:
    """As Go's fmt does with %v; a value that is not there prints as text/template has it."""
    match value:
        case None:
            return "<nil>" if inside else "<no value>"
        case bool():
            return str(value).lower()
        case float() if value.is_integer():
            return str(int(value))
        case Mapping():
            pairs = (f"{key}:{text(each, inside=True)}" for key, each in sorted(value.items()))
            return f"map[{' '.join(pairs)}]"
        case list() | tuple():
            return f"[{' '.join(text(each, inside=True) for each in value)}]"
    return str(value)


def _json(value: Any, indent: int | None = None) -> str:
    """As Go's encoding/json: keys sorted, and the characters that mean something in HTML escaped."""
    separators = (",", ":" if indent is None else ": ")
    text = json.dumps(
        value, indent=indent, separators=separators, sort_keys=True, ensure_ascii=False
    )
    return re.sub("[<>&]", lambda found: f"\\u{ord(found[0]):04x}", text)


def _eq(first: Any, *others: Any) -> bool:
    return any(
        first == other and isinstance(first, bool) == isinstance(other, bool) for other in others
    )


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, Mapping):
            value = value.get(key)
        elif isinstance(value, list | tuple) and isinstance(key, int) and key >= 0:
            value = value[key]
        else:
            raise TypeError(f"{text(value)} has no element {text(key)}")
    return value


FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "json": _json,
    "prettyjson": partial(_json, indent=4),
    "eq": _eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "not": operator.not_,
    "and": lambda *values: next((each for each in values if not each), values[-1]),
    "or": lambda *values: next((each for each in values if each), values[-1]),
    "len": len,
    "index": _index,
}
