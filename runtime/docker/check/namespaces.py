"""A container's own namespaces."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

from machine.model import Verdict
from machine.runtime.docker.check.lesson import PID, Lesson, sections

ASK: Final = """
echo "== ids"
for name in pid net mnt uts ipc user cgroup; do
    if [ -e "/proc/1/ns/$name" ]; then
        echo "$name $(readlink "/proc/$pid/ns/$name") $(readlink "/proc/1/ns/$name")"
    fi
done
echo "== status"
grep NSpid "/proc/$pid/status" || true
"""
"""Needs $pid. The kernel names a namespace by its inode: two processes with the same one share it."""

MEANING: Final = {
    "pid": (
        "pid",
        "A container's processes have numbers of their own, beginning with 1, and see no others. "
        "The host sees all of them, under other numbers.",
    ),
    "net": (
        "net",
        "Interfaces, addresses, routes and ports of the container's own: two containers may both "
        "listen on port 80.",
    ),
    "mnt": (
        "mount",
        "A table of mounts of its own: the container's / is another file system than the host's.",
    ),
    "uts": (
        "uts",
        "A host name of its own (UTS: Unix time-sharing system, which uname names).",
    ),
    "ipc": (
        "ipc",
        "Shared memory, semaphores and message queues that no process outside can open.",
    ),
    "user": (
        "user",
        "Users of its own: root in the container is an ordinary user of the host. Docker has it "
        "off unless dockerd is started with userns-remap.",
    ),
    "cgroup": (
        "cgroup",
        "The container sees its own control group as the root, and not where it is in the host's "
        "tree. On unless the host has version 1 of control groups.",
    ),
}
"""By the kernel's name: ours, and what it is."""
OPTIONAL: Final = frozenset({"user", "cgroup"})


def lesson(name: str) -> Lesson:
    title, explanation = MEANING[name]
    look = (PID, f"sudo readlink /proc/$pid/ns/{name} /proc/1/ns/{name}")
    return Lesson(f"{title} namespace", explanation, look)


def judge(text: str, security: Collection[str]) -> Iterator[Verdict]:
    """``text`` is what ASK printed; ``security`` is the engine's own list of what is on."""
    found = sections(text)
    lines = (line.split() for line in found["ids"].splitlines())
    ids = {line[0]: (line[1], line[2]) for line in lines if len(line) == 3}
    on = {option.removeprefix("name=").partition(",")[0] for option in security}
    for name in MEANING:
        if name not in ids:
            yield lesson(name).not_applicable("the host's kernel has none")
            continue
        own, hosts = ids[name]
        evidence = [f"in the container {own}, on the host {hosts}"]
        if name == "pid" and "NSpid" in found["status"]:
            evidence.append(_numbers(found["status"]))
        if own == hosts and name in OPTIONAL and _option(name) not in on:
            yield lesson(name).not_applicable("off on this engine", *evidence)
        elif own == hosts:
            yield lesson(name).failed("shared with the host", *evidence)
        else:
            yield lesson(name).ok("the container has its own", *evidence)


def _option(name: str) -> str:
    """As `docker info` calls it under its security options."""
    return {"user": "userns", "cgroup": "cgroupns"}[name]


def _numbers(status: str) -> str:
    """proc(5): NSpid has a process's number in each nested namespace, the outermost first."""
    words = status.split()
    return f"its process {words[-1]} is the host's process {words[1]}"
