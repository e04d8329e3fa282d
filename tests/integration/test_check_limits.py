"""What `machine check` sees of limits on this computer's own kernel: where they are, and where one
that was to be there is not."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from machine import wait
from machine.model import Outcome
from machine.runtime.docker.check import limits, scene

CGROUP: Final = Path("/sys/fs/cgroup")
MOST: Final = str(limits.MEMORY_MIB * limits.MIB)
LIMITS: Final = {  # by the version of this computer's control groups: files in the order to write them
    1: {
        "memory/memory.limit_in_bytes": MOST,
        "memory/memory.memsw.limit_in_bytes": MOST,
        "cpu/cpu.cfs_period_us": str(limits.PERIOD_US),
        "cpu/cpu.cfs_quota_us": str(limits.QUOTA_US),
    },
    2: {
        "memory.max": MOST,
        "memory.swap.max": "0",
        "cpu.max": f"{limits.QUOTA_US} {limits.PERIOD_US}",
    },
}
BOX: Final = """
set -eu
root=$1
shift
mount -t tmpfs tmpfs "$root"
for folder in /bin /sbin /lib /lib64 /usr /dev; do
    [ -d $folder ] || continue
    mkdir "$root$folder"
    mount --bind $folder "$root$folder"
done
for group in "$@"; do echo $$ >"$group/cgroup.procs"; done
exec chroot "$root" /bin/sh -c "$READER"
"""


@contextmanager
def container(root: Path, wanted: Mapping[str, str], version: int) -> Iterator[int]:
    """The first process of what an engine would make: in control groups of its own with what is
    ``wanted`` of limits, on a file system of its own."""
    name = f"machine-{uuid.uuid4().hex}"
    places = ("memory", "cpu", "cpuacct") if version == 1 else (".",)
    with (
        controllers(version),
        control_groups([CGROUP / place / name for place in places]) as groups,
    ):
        for file, value in wanted.items():
            place, _, own = file.rpartition("/")
            path = CGROUP / place / name / own
            if "sw" not in own or path.exists():  # where the kernel does not count swap
                path.write_text(value)
        words = ["unshare", "-m", "-p", "-f", "--kill-child", "--propagation", "private"]
        process = subprocess.Popen(
            [*words, "sh", "-c", BOX, "sh", str(root), *map(str, groups)],
            env={**os.environ, "READER": scene.READER},
        )
        try:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            (first,) = wait.until("the container", lambda: children.read_text().split(), timeout=20)
            yield int(first)
        finally:
            process.kill()
            process.wait()


@contextmanager
def control_groups(groups: Sequence[Path]) -> Iterator[Sequence[Path]]:
    for group in groups:
        group.mkdir()
    try:
        yield groups
    finally:
        for group in groups:
            wait.until("an empty group", partial(_is_empty, group), timeout=20)
            group.rmdir()


def _is_empty(group: Path) -> bool:
    return not (group / "cgroup.procs").read_text()


@contextmanager
def controllers(version: int) -> Iterator[None]:
    """What groups of version 2 may limit is said in the root, which is left as it was."""
    if version == 1:
        yield
        return
    control = CGROUP / "cgroup.subtree_control"
    added = sorted({"memory", "cpu"} - set(control.read_text().split()))
    control.write_text(" ".join(f"+{each}" for each in added))
    try:
        yield
    finally:
        control.write_text(" ".join(f"-{each}" for each in added))


def ask(pid: int, script: str) -> str:
    words = ["sh", "-eu"]
    asked = subprocess.run(words, input=f"pid={pid}\n{script}", capture_output=True, text=True)
    assert asked.returncode == 0, asked.stderr
    return asked.stdout


@pytest.mark.parametrize("limited", [True, False])
def test_a_limit_that_is_not_there_is_found(limited: bool, tmp_path: Path) -> None:
    version = 2 if (CGROUP / "cgroup.controllers").exists() else 1
    with container(tmp_path, LIMITS[version] if limited else {}, version) as pid:
        memory = limits.judge_memory(ask(pid, f"{scene.READY}{limits.ASK_MEMORY}"), [])
        cpu = limits.judge_cpu(ask(pid, limits.ASK_CPU), [])
    wanted = Outcome.OK if limited else Outcome.FAILED
    assert (memory.outcome, cpu.outcome) == (wanted, wanted), (memory, cpu)
    assert ("the group has no limit" in memory.evidence) != limited
    assert ("the group has no quota" in cpu.evidence) != limited
