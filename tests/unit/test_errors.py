from __future__ import annotations

import re

from machine import errors
from machine.errors import MachineError


def classes() -> list[type[MachineError]]:
    return [
        each
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, MachineError)
    ]


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = re.findall(r"^[\s│├└─]*([A-Z]\w+)", errors.__doc__ or "", re.MULTILINE)
    names = {each.__name__ for each in classes()}
    assert set(drawn) - {"Every"} == names


def test_exit_codes() -> None:
    codes = {each.__name__: each.exit_code for each in classes()}
    assert codes["PreflightError"] == 3
    assert codes["HostGone"] == 4
    assert codes["UsageError"] == 2
    assert codes["BadName"] == 1
    assert codes["MachineError"] == 1
