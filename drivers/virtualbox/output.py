"""What VBoxManage prints, read: every function takes its text, and asks nobody.

Seen with 7.2; what 6.1, 7.0 and 7.1 print otherwise is named where it matters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from machine.model import Snapshot, State

UUID: Final = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
STATES: Final = {  # VBoxManageInfo.cpp, machineStateToName: (short, long) names
    ("poweroff", "powered off"): State.STOPPED,
    ("saved", "saved"): State.SAVED,
    ("teleported", "teleported"): State.STOPPED,
    ("aborted", "aborted"): State.STOPPED,  # its process ended by itself; it can be started
    ("aborted-saved", "aborted-saved"): State.SAVED,  # from 7.0 on
    ("running", "running"): State.RUNNING,
    ("paused", "paused"): State.PAUSED,
    ("gurumeditation", "guru meditation"): State.ERROR,
    ("livesnapshotting", "live snapshotting"): State.RUNNING,
    ("teleporting", "teleporting"): State.RUNNING,
    ("starting", "starting"): State.STARTING,
    ("stopping", "stopping"): State.STOPPING,
    ("saving", "saving"): State.STOPPING,
    ("restoring", "restoring"): State.STARTING,
    ("teleportingpausedvm", "teleporting paused vm"): State.PAUSED,
    ("teleportingin", "teleporting (incoming)"): State.STARTING,
    ("deletingsnapshotlive", "deleting snapshot live"): State.RUNNING,
    ("deletingsnapshotlivepaused", "deleting snapshot live paused"): State.PAUSED,
    ("onlinesnapshotting", "online snapshotting"): State.RUNNING,
    ("restoringsnapshot", "restoring snapshot"): State.STOPPED,
    ("deletingsnapshot", "deleting snapshot"): State.STOPPED,
    ("settingup", "setting up"): State.STOPPED,
    ("snapshotting", "offline snapshotting"): State.STOPPED,
}
UNREADABLE: Final = "<inaccessible>"
"""What stands for the name of a machine whose settings file cannot be read."""
_BY_WORD: Final = {word: state for words, state in STATES.items() for word in words}
_PROBLEMS: Final = {
    "aborted": "its VM process ended by itself",
    "aborted-saved": "its VM process ended by itself",
    "gurumeditation": "VirtualBox stopped it after an error it could not handle",
    "guru meditation": "VirtualBox stopped it after an error it could not handle",
}
_WARNING_END: Final = re.compile(r"^\s*You will not be able to start VMs until .*\n\s*", re.M)
_VERSION: Final = re.compile(r"^(\d+)\.(\d+)\.(\d+)\S*$", re.M)
_VM: Final = re.compile(rf'^"(.*)" \{{({UUID})\}}$')
_SETTING: Final = re.compile(r'^(?:"([^"]+)"|([\w-]+(?:\(\d+\))?))=(.*)$')
_FIELD: Final = re.compile(r"^([^:\s][^:]*):[ \t]*(.*)$")
_ERROR: Final = re.compile(r"^VBoxManage(?:\.exe)?: error: (.*)$", re.M)
_CODE: Final = re.compile(r"\b[Cc]ode ([A-Z_]+) \(0x[0-9a-f]+\)")


class Version(NamedTuple):
    major: int
    minor: int
    patch: int

    def __str__(self) -> str:
        return ".".join(str(part) for part in self)


class Sight(NamedTuple):
    state: State
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """What an error said, and the name of its code; "" where it had none (wrong usage)."""

    text: str
    code: str


def answer(stdout: str) -> str:
    """Without the warning that Debian's start script puts before every answer while the kernel
    driver is not loaded."""
    found = _WARNING_END.search(stdout)
    return stdout[found.end() :] if found else stdout


def version(text: str) -> Version | None:
    """Of ``--version``: 7.2.4r170995, or 7.2.22_Debianr175245; None for what is no version."""
    found = _VERSION.search(text)
    return Version(*(int(part) for part in found.groups())) if found else None


def vms(text: str) -> dict[str, str]:
    """Of ``list vms``: names by UUID. Quotes in names are not escaped, so the line is read from its
    end."""
    found = (_VM.match(line) for line in text.splitlines())
    return {each[2]: each[1] for each in found if each}


def settings(text: str) -> dict[str, str]:
    """Of ``--machinereadable``: values by key, without quotes. The first line of a key counts: what
    a description has in its further lines may look like others."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        if found := _SETTING.match(line):
            value = found[3]
            if len(value) > 1 and value[0] == value[-1] == '"':
                value = value[1:-1].replace('\\"', '"')
            values.setdefault(found[1] or found[2], value)
    return values


def blocks(text: str) -> Iterator[dict[str, str]]:
    """Of ``list hdds``, ``hostonlyifs`` and the like: one dictionary each. A block begins where its
    first key comes again: in ``list hostonlynets`` an empty line may also be within one."""
    block: dict[str, str] = {}
    for line in text.splitlines():
        if found := _FIELD.match(line):
            if found[1] == next(iter(block), None):
                yield block
                block = {}
            block.setdefault(found[1], found[2].strip())
    if block:
        yield block


def sights(text: str) -> dict[str, Sight]:
    """Of ``list --long vms``: states by UUID, all of one call. A machine that cannot be read has a
    UUID and no state."""
    found: dict[str, Sight] = {}
    current = ""
    for line in text.splitlines():
        match = _FIELD.match(line)
        if match is None:
            continue
        key, value = match[1], match[2].strip()
        if key == "UUID" and re.fullmatch(UUID, value):
            current = value
            found[current] = Sight(State.ERROR, "VirtualBox cannot read its settings file")
        elif key == "State" and current:
            found[current] = sight(value.split(" (since")[0])
    return found


def sight(word: str) -> Sight:
    """A state by its short or its long name; a name that a later version made up is UNKNOWN."""
    word = word.lower()
    state = _BY_WORD.get(word)
    if state is None:
        return Sight(State.UNKNOWN, f"VirtualBox says: {word}")
    return Sight(state, _PROBLEMS.get(word, ""))


def failure(stderr: str) -> Failure:
    """The first line that says error, and the code's name, which no version translates."""
    told = [
        line for line in _ERROR.findall(stderr) if not line.startswith(("Details:", "Context:"))
    ]
    text = next(iter(told), stderr.strip().rpartition("\n")[2])
    code = _CODE.search(stderr)
    return Failure(text, code[1] if code else "")


def forwards(values: Mapping[str, str]) -> dict[str, str]:
    """Rules of the first card, by name. 7.0.0 to 7.0.2 show none where there are several."""
    rules = (value for key, value in values.items() if key.startswith("Forwarding("))
    return {rule.split(",")[0]: rule for rule in rules}


def forward(name: str, port: int, guest: str, guest_port: int) -> str:
    """A rule as ``--nat-pf1`` takes it and ``showvminfo`` shows it: on loopback only."""
    return f"{name},tcp,127.0.0.1,{port},{guest},{guest_port}"


def snapshots(text: str) -> list[Snapshot]:
    """Of ``snapshot list --machinereadable``: a child's key has its parent's and a number more, and
    comes after it."""
    values = settings(text)
    current = values.get("CurrentSnapshotUUID")
    return [
        Snapshot(value, current=values.get(key.replace("Name", "UUID", 1)) == current)
        for key, value in values.items()
        if key.startswith("SnapshotName")
    ]
