"""Each shell gives a value back unchanged: the real shells evaluate what is printed."""

from __future__ import annotations

import os
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machine import registry

VALUES = [
    "plain",
    "two words",
    "",
    "$HOME and ${HOME} and `id` and $(id)",
    'it\'s "quoted"',
    "back\\slash \\n",
    "a;b|c&d>e<f",
    "*?[a]~",
    "bang!bang",
    "100% #no comment",
    "ümläut",
]
SHELLS = {
    "sh": ("posix", ["sh", "-c"]),
    "bash": ("posix", ["bash", "-c"]),
    "zsh": ("posix", ["zsh", "-f", "-c"]),
    "fish": ("fish", ["fish", "--no-config", "-c"]),
    "tcsh": ("tcsh", ["tcsh", "-f", "-c"]),
}


def given_back(shell: str, value: str) -> str:
    """The value that a program sees which the shell starts after evaluating our line."""
    module, argv = SHELLS[shell]
    line = registry.shell(module).assign("MACHINE_TEST", value)
    ran = subprocess.run(
        [*argv, f"{line}\nprintenv MACHINE_TEST"],
        capture_output=True,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        check=True,
    )
    return ran.stdout.decode().removesuffix("\n")


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("value", VALUES)
def test_a_value_comes_back(shell: str, value: str) -> None:
    assert given_back(shell, value) == value


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30))
@settings(max_examples=40, deadline=None)
def test_any_printable_value_comes_back(value: str) -> None:
    assert given_back("bash", value) == value


@pytest.mark.parametrize("shell", SHELLS)
def test_a_variable_is_removed(shell: str) -> None:
    module, argv = SHELLS[shell]
    line = registry.shell(module).unset("MACHINE_TEST")
    ran = subprocess.run(
        [*argv, f"{line}\nprintenv MACHINE_TEST"],
        capture_output=True,
        env={**os.environ, "MACHINE_TEST": "x"},
        check=False,
    )
    assert ran.stdout == b""


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("powershell", "$Env:A = 'it''s $x'"),
        ("cmd", "SET A=it's $x"),
        ("emacs", '(setenv "A" "it\'s $x")'),
    ],
)
def test_shells_that_are_not_installed_here(name: str, line: str) -> None:
    assert registry.shell(name).assign("A", "it's $x") == line


@pytest.mark.parametrize("name", registry.SHELLS)
def test_the_hint_is_a_comment(name: str) -> None:
    first = registry.shell(name).hint("machine env worker1").splitlines()[0]
    assert first.startswith(("#", ":", "REM", ";;"))
