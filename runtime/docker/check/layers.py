"""The union file system: an image's layers below, and what a container writes above them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from machine.model import Verdict
from machine.runtime.docker.check.lesson import PID, Lesson, sections

IN_IMAGE: Final = "from-image"
WRITTEN: Final = "written"
BEFORE: Final = "as it is in the image"
AFTER: Final = "changed in the container"
"""The image's file, and what the container puts into it."""

ASK_MOUNT: Final = 'grep " / " "/proc/$pid/mounts"'

LAYERS: Final = Lesson(
    "union file system",
    "A container's files are several folders of the host laid over each other: the lower ones are "
    "the image's layers, shared by all its containers and never written; the upper one is the "
    "container's alone. What is in an upper folder hides what is below it.",
    (PID, "sudo grep ' / ' /proc/$pid/mounts   # lowerdir, upperdir"),
)
WRITES: Final = Lesson(
    "copy on write",
    "A file that the container makes lands in the upper folder. One of the image that it changes is "
    "copied there first, so that the image stays as it is. The upper folder goes with the "
    "container: what is to stay belongs into a volume.",
    (
        "sudo docker exec CONTAINER touch /mine",
        "sudo docker diff CONTAINER",
        PID,
        "upper=$(sudo sed -n 's|.* / .*upperdir=\\([^, ]*\\).*|\\1|p' /proc/$pid/mounts)",
        "sudo ls $upper",
    ),
)


@dataclass(frozen=True, slots=True)
class Union:
    """Where the layers of a mounted overlay are on the host; the topmost of the lower ones first."""

    lower: tuple[str, ...]
    upper: str


def union(mounts: str) -> Union | None:
    """Of the line for / in a /proc/PID/mounts; None where that is no overlay. A space in a path is
    \\040 there (proc(5)); newer kernels list each lower folder by itself, as lowerdir+."""
    for line in mounts.splitlines():
        _, place, kind, options, *_ = line.split()
        if place != "/" or kind not in ("overlay", "fuse.fuse-overlayfs"):
            continue
        values = [option.partition("=")[::2] for option in options.split(",")]
        lower = [v for key, v in values if key in ("lowerdir", "lowerdir+")]
        upper = [v for key, v in values if key == "upperdir"]
        folders = [each for part in lower for each in part.split(":") if each]
        if folders and upper:
            return Union(tuple(map(_unescaped, folders)), _unescaped(upper[0]))
    return None


def ask_files(layers: Union) -> str:
    """A script that prints what the two files have in each layer."""
    lines = []
    for number, folder in enumerate((layers.upper, *layers.lower)):
        for name in (IN_IMAGE, WRITTEN):
            path = shlex.quote(f"{folder}/{name}")
            lines.append(f'if [ -f {path} ]; then echo "== {number} {name}"; cat {path}; fi')
    return "\n".join(lines)


def judge_mount(mounts: str) -> Verdict:
    layers = union(mounts)
    if layers is None:
        kinds = [line.split()[2] for line in mounts.splitlines()]
        return LAYERS.failed(
            f"the container's / is no overlay, but {', '.join(kinds) or 'nothing'}", mounts
        )
    below = len(layers.lower)
    return LAYERS.ok(
        f"/ is an overlay of {below} lower layer{'s' if below > 1 else ''} and one upper",
        *(f"lower {folder}" for folder in layers.lower),
        f"upper {layers.upper}",
    )


def judge_files(text: str, layers: Union) -> Verdict:
    """``text`` is what the script of ``ask_files`` printed, once the container had written."""
    found = sections(text)
    problems = [*_problems(found, range(1, len(layers.lower) + 1))]
    evidence = tuple(_evidence(found))
    if problems:
        return WRITES.failed("; ".join(problems), *evidence)
    return WRITES.ok("what the container wrote is in the upper layer only", *evidence)


def _problems(found: Mapping[str, str], lower: Sequence[int]) -> Iterator[str]:
    if f"0 {WRITTEN}" not in found:
        yield "a new file is not in the upper layer"
    if any(f"{number} {WRITTEN}" in found for number in lower):
        yield "a new file is in a lower layer"
    if found.get(f"0 {IN_IMAGE}") != AFTER:
        yield "a changed file is not in the upper layer"
    if [found[f"{n} {IN_IMAGE}"] for n in lower if f"{n} {IN_IMAGE}" in found] != [BEFORE]:
        yield "the image's own file is not as it was"


def _evidence(found: Mapping[str, str]) -> Iterator[str]:
    for name in (WRITTEN, IN_IMAGE):
        for key, content in found.items():
            number, _, file = key.partition(" ")
            if file == name:
                yield f'{"upper" if number == "0" else "lower"}: /{file} has "{content}"'


def _unescaped(path: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), path)
