"""What a folder consists of, here and on a machine, and what has to be done for the two to agree."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final

LISTING: Final = r"%y\0%s\0%T@\0%m\0%l\0%P\0"
"""For GNU find's -printf: an entry in six parts, whatever is in its name."""
FILE, FOLDER, LINK = "f", "d", "l"


@dataclass(frozen=True, slots=True)
class Entry:
    """Of one file, folder or symbolic link, what tells whether it is another one now."""

    kind: str  # find's letter; others than the three above are sockets and the like
    size: int = 0
    mtime: int = 0  # nanoseconds
    mode: int = 0
    link: str = ""

    @classmethod
    def of(cls, status: os.stat_result, link: str = "") -> Entry:
        if stat.S_ISDIR(status.st_mode):
            return cls(FOLDER)
        if stat.S_ISLNK(status.st_mode):
            return cls(LINK, link=link)
        kind = FILE if stat.S_ISREG(status.st_mode) else "?"
        return cls(kind, status.st_size, status.st_mtime_ns, stat.S_IMODE(status.st_mode))

    @property
    def is_folder(self) -> bool:
        return self.kind == FOLDER


Tree = Mapping[str, Entry]
"""By paths relative to the root, which is "" itself: it may be a single file."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What is left out of a folder, by paths relative to it."""

    ignore: Callable[[str], bool]
    final: bool = True  # nothing in a folder that is left out is taken in again


@dataclass(slots=True)
class Scan:
    """A folder of this computer as it is now."""

    tree: dict[str, Entry] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)


def scan(root: Path, rules: Rules) -> Scan:
    """A root that is a symbolic link is followed, as an engine here would follow it; it is never
    ignored. Nothing at all where there is no root."""
    found = Scan()
    try:
        found.tree[""] = Entry.of(root.stat())
    except FileNotFoundError:
        return found
    pending = [""] if found.tree[""].is_folder else []
    while pending:
        path = pending.pop()
        try:
            with os.scandir(root / path) as entries:
                below = [(f"{path}/{each.name}".lstrip("/"), _entry(each)) for each in entries]
        except FileNotFoundError:  # gone since its folder was read
            continue
        except PermissionError:
            found.unreadable.append(path)
            continue
        for name, entry in below:
            if entry is None or entry.kind == "?":
                continue
            ignored = rules.ignore(name)
            if entry.is_folder and not (ignored and rules.final):
                pending.append(name)
            if not ignored:
                found.tree[name] = entry
                for above in _above(name):
                    found.tree.setdefault(above, Entry(FOLDER))
    return found


def _entry(each: os.DirEntry[str]) -> Entry | None:
    try:
        link = os.readlink(each.path) if each.is_symlink() else ""  # noqa: PTH115 - as it is
        return Entry.of(each.stat(follow_symlinks=False), link)
    except FileNotFoundError:
        return None


def listed(raw: bytes) -> dict[str, Entry]:
    """What find printed with LISTING."""
    words = raw.split(b"\0")[:-1]
    tree = {}
    for kind, size, time, mode, link, path in zip(*[iter(words)] * 6, strict=True):
        letter = kind.decode()
        if letter in (FOLDER, LINK):
            entry = Entry(letter, link=os.fsdecode(link))
        else:
            seconds, _, fraction = time.decode().partition(".")
            nanoseconds = int(seconds) * 10**9 + int(fraction[:9].ljust(9, "0"))
            entry = Entry(letter, int(size), nanoseconds, int(mode, 8))
        tree[os.fsdecode(path)] = entry
    return tree


def as_json(tree: Tree) -> dict[str, Any]:
    return {path: asdict(entry) for path, entry in tree.items()}


def from_json(data: Mapping[str, Any]) -> dict[str, Entry]:
    return {path: Entry(**entry) for path, entry in data.items()}


@dataclass(slots=True)
class Plan:
    """Paths in the order in which they are to be treated."""

    send: list[str] = field(default_factory=list)
    remove: list[str] = field(default_factory=list)  # there, before anything is sent
    clash: list[str] = field(default_factory=list)  # changed on both sides: left as they are


def to_send(
    here: Tree, there: Tree, sent: Tree, *, delete: bool = False, overwrite: bool = False
) -> Plan:
    """What has to change there. ``sent`` is what was there when the two agreed last: what was
    changed only there stays, and ``delete`` removes what was sent, is gone here, and did not change
    there."""
    plan = Plan()
    if delete:
        plan.remove = [
            path
            for path in sorted(sent, reverse=True)  # what is in a folder before the folder
            if path and there.get(path) == sent[path] and path not in here
        ]
    removed = set(plan.remove)
    full = {path.rpartition("/")[0] for path in there if path and path not in removed}
    blocked: set[str] = set()
    for path in sorted(here):
        mine, theirs = here[path], None if path in removed else there.get(path)
        if any(above in blocked for above in _above(path)):
            blocked.add(path)
        elif theirs is None:
            plan.send.append(path)
        elif mine != theirs:
            fresh = mine != sent.get(path)
            if theirs.is_folder and path not in full:  # as engines make where a file is missing
                plan.remove.append(path)
                plan.send.append(path)
            elif theirs.is_folder or (fresh and theirs != sent.get(path) and not overwrite):
                plan.clash.append(path)
                blocked.add(path)
            elif fresh or overwrite:
                plan.send.append(path)
                plan.remove += [path] if mine.is_folder else []
    return plan


def to_fetch(here: Tree, there: Tree, sent: Tree, rules: Rules) -> Plan:
    """What was made or changed there since the two agreed last, and not here. ``send`` of the answer
    is what is to come."""
    plan = Plan()
    blocked: set[str] = set()
    for path in sorted(there):
        mine, theirs, was = here.get(path), there[path], sent.get(path)
        if any(above in blocked for above in _above(path)) or theirs.kind not in (
            FILE,
            FOLDER,
            LINK,
        ):
            blocked.add(path)
        elif theirs in (mine, was) or (path and rules.ignore(path)):
            continue
        elif mine is None or (mine == was and not mine.is_folder and not theirs.is_folder):
            plan.send.append(path)
        else:
            plan.clash.append(path)
            blocked.add(path)
    return plan


def agreed(here: Tree, there: Tree, sent: Tree) -> dict[str, Entry]:
    """What the two agree in now; where they do not, what they agreed in before."""
    both = {path: entry for path, entry in here.items() if there.get(path) == entry}
    return {**{path: entry for path, entry in sent.items() if path in there}, **both}


def leaving(root: PurePosixPath, tree: Tree) -> Iterator[tuple[str, str]]:
    """Links that lead out of the root, and where to: by their words alone."""
    for path, entry in sorted(tree.items()):
        if entry.kind == LINK:
            target = os.path.normpath(root / PurePosixPath(path).parent / entry.link)
            if not PurePosixPath(target).is_relative_to(root):
                yield path, entry.link


def _above(path: str) -> Iterator[str]:
    """The folders that a path is in, the innermost first."""
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path
