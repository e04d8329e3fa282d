"""Completion as it happens: the printed scripts are evaluated and asked in the real shells."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pexpect
import pytest

from machine import registry
from machine.paths import cache_root, user_templates
from tests.integration.test_cli import ROOT, machine

pytestmark = pytest.mark.filterwarnings("ignore:.*forkpty:DeprecationWarning")

CANDIDATES = [
    ("machine st", ["start", "status", "stop"]),
    ("machine ssh w", ["web", "worker1", "worker2"]),
    ("machine ssh web ", []),
    ("machine stop worker1 w", ["web", "worker2"]),
    ("machine rm -f web w", ["worker1", "worker2"]),
    ("machine -s other ssh ", ["far"]),
    ("machine create --resume wo", ["worker1", "worker2"]),
    ("machine create w", []),
    ("machine create -d ", sorted([*registry.DRIVERS, "folder"])),
    ("machine create -d lib", ["libvirt"]),
    ("machine drivers fol", ["folder"]),
    ("machine layer build -d fol", ["folder"]),
    ("machine snapshot take w", ["web", "worker1", "worker2"]),
    (
        "machine create -d libvirt --libvirt-m",
        ["--libvirt-machine-type", "--libvirt-memory"],
    ),
    ("machine create -d folder --folder-p", ["--folder-port"]),
    ("machine create -d nosuch --", []),
    ("machine create -t debian", ["debian-12", "debian-13"]),
    ("machine create -t other/mine", ["other/mine.toml"]),
    ("machine template show mi", ["mine"]),
    ("machine image verify al", ["alpine"]),
    ("machine bundle show do", ["docker-debian-13"]),
    ("machine env --shell po", ["powershell"]),
    ("machine ls --output ", ["json", "text"]),
    ("machine inspect --for", ["--format"]),
    ("machine bundle ve", ["verify"]),
    ("machine completion z", ["zsh"]),
    ("machine scp we", ["web:", "webfile"]),
    ("machine scp web:/etc/hosts other/", ["other/machines/", "other/mine.toml"]),
    ("machine nosuch ", []),
]


@pytest.fixture
def work(
    own_home: Path, folder_driver: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder to stand in: a store, caches and templates that are nothing but file names, and
    the program on PATH."""
    for name in ("web", "worker1", "worker2"):
        (own_home / ".docker" / "machine" / "machines" / name).mkdir(parents=True)
    work = tmp_path / "work"
    (work / "other" / "machines" / "far").mkdir(parents=True)
    for path in (
        user_templates() / "mine.toml",
        cache_root() / "images" / "alpine" / "image.json",
        cache_root() / "bundles" / "docker-debian-13.json",
        work / "other" / "mine.toml",
        work / "webfile",
        work / "two words",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    program = tmp_path / "bin" / "machine"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\nPYTHONPATH={ROOT}:$PYTHONPATH exec {sys.executable} -m machine "$@"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.chdir(work)
    return work


def bash(line: str) -> list[str]:
    script = (
        'eval "$(machine completion bash)"\n'
        f"COMP_LINE={shlex.quote(line)} COMP_POINT={len(line)}\n"
        'complete -p machine >&2 && _machine_completion 2>/dev/null; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    return _shown("bash", "--norc", "-c", script)


def fish(line: str) -> list[str]:
    script = f"machine completion fish | source\ncomplete -C {shlex.quote(line)}"
    return _shown("fish", "--no-config", "-c", script)


def _shown(*argv: str) -> list[str]:
    ran = subprocess.run(argv, capture_output=True, text=True, check=True)
    return sorted(line.split("\t")[0] for line in ran.stdout.splitlines() if line)


@pytest.mark.parametrize("shell", [bash, fish])
def test_candidates(shell: Callable[[str], list[str]], work: Path) -> None:
    assert {line: shell(line) for line, _ in CANDIDATES} == dict(CANDIDATES)


class Typed:
    """An interactive shell at its prompt, with the script evaluated as a user would."""

    def __init__(self, *argv: str, prepare: str = "") -> None:
        self.child: pexpect.spawn[str] = pexpect.spawn(
            argv[0],
            list(argv[1:]),
            env={**os.environ, "TERM": "dumb", "PS1": "READY> ", "LC_ALL": "C.UTF-8"},
            encoding="utf-8",
            dimensions=(24, 200),
            timeout=60,
        )
        shell = Path(argv[0]).name
        self.child.expect("READY> ")
        self.words(f'{prepare}; eval "$(machine completion {shell})"; {FUNCTION}; machine a\\ b')

    def words(self, line: str) -> list[str]:
        """The words that the program would be given."""
        self.child.sendline(line)
        self.child.expect(r"\r\n\[(.*)\]\r\n")
        words: list[str] = self.child.match[1].split("][")  # type: ignore[index]
        self.child.expect("READY> ")
        return words


FUNCTION = "machine() { printf '[%s]' \"$@\"; echo; }"
SHELLS = [
    (("bash", "--norc", "--noprofile", "-i"), "bind 'set enable-bracketed-paste off'"),
    (
        ("zsh", "-f", "-i"),
        "unsetopt zle_bracketed_paste prompt_sp; autoload -U compinit; compinit -u",
    ),
]


@pytest.mark.parametrize(("argv", "prepare"), SHELLS, ids=["bash", "zsh"])
def test_a_word_is_finished_with_a_blank_or_without(
    argv: tuple[str, ...], prepare: str, work: Path
) -> None:
    typed = Typed(*argv, prepare=prepare)
    for begun, words in {
        "machine ssh we\tx": ["ssh", "web", "x"],
        "machine scp webf\tx": ["scp", "webfile", "x"],
        "machine scp wo\t1\tx": ["scp", "worker1:x"],
        "machine create --driver=lib\tx": ["create", "--driver=libvirt", "x"],
        "machine create -t other/\tx": ["create", "-t", "other/mx"],
        "machine scp tw\tx": ["scp", "two words", "x"],
    }.items():
        assert typed.words(begun) == words


def test_only_three_shells_are_served() -> None:
    ran = machine("completion", "tcsh")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "bash, zsh, fish" in ran.stderr
