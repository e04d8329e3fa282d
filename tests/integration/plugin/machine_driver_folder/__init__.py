"""The smallest driver: a host is a folder, and it runs while a file in it says so."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from machine.driver import Driver
from machine.errors import DriverError, PreflightError
from machine.flags import option
from machine.model import Address, Can, Size, Snapshot, State, VmSpec


@dataclass(frozen=True, slots=True)
class FolderConfig:
    root: str = option("", "folder that holds the hosts", metavar="DIR")
    port: int = option(2376, "port that an engine listens on", low=1, high=65535)
    tags: tuple[str, ...] = option((), "words to write into the host")
    loud: bool = option(False, "say what is done")
    room: int | None = option(None, "memory that there is for hosts", metavar="MIB")
    memory: int | None = option(None, "memory", metavar="MIB")
    disk_size: int | None = option(None, "disk", metavar="GIB")


@dataclass(frozen=True, slots=True)
class FolderFacts:
    made: bool = False


class FolderDriver(Driver[FolderConfig, FolderFacts]):
    name: ClassVar[str] = "folder"
    can: ClassVar[Can] = Can.POWER | Can.KILL | Can.IDENTITY | Can.SNAPSHOT | Can.RESIZE
    resizes: ClassVar[frozenset[str]] = frozenset({"memory_mib", "disk_gib"})
    config_type: ClassVar[type[FolderConfig]] = FolderConfig
    facts_type: ClassVar[type[FolderFacts]] = FolderFacts

    @property
    def _state(self) -> Path:
        root = Path(self.config.root) if self.config.root else self.host.folder
        return root / self.host.id / "state"

    def memory_available(self) -> int | None:
        return self.config.room

    def preflight(self) -> None:
        if self.config.root and not Path(self.config.root).is_dir():
            raise PreflightError(
                f"{self.config.root} is no folder", hint=f"mkdir -p {self.config.root}"
            )

    def create(self, spec: VmSpec) -> None:
        self._state.parent.mkdir(parents=True, exist_ok=True)
        self.save(replace(self.facts, made=True))
        self.start()

    def state(self) -> State:
        return State(self._state.read_text()) if self._state.exists() else State.MISSING

    def address(self) -> Address:
        return Address("127.0.0.1", engine_port=self.config.port)

    def start(self) -> None:
        self._state.write_text(State.RUNNING)

    def stop(self) -> None:
        self._state.write_text(State.STOPPED)

    def kill(self) -> None:
        self._state.write_text(State.STOPPED)

    @property
    def _disk(self) -> Path:
        disk = self._state.with_name("disk")
        disk.touch()
        return disk

    def _kept(self, name: str) -> Path:
        kept = self._state.with_name("kept") / name
        if not kept.exists():
            raise DriverError(f"There is no {name}")
        return kept

    def snapshot(self, name: str) -> None:
        folder = self._state.with_name("kept")
        folder.mkdir(exist_ok=True)
        if (folder / name).exists():
            raise DriverError(f"There is a {name} already")
        (folder / name).write_text(self._disk.read_text())

    def snapshots(self) -> Sequence[Snapshot]:
        kept = self._state.with_name("kept").glob("*")
        return [Snapshot(each.name) for each in sorted(kept, key=lambda path: path.stat().st_ctime)]

    def restore(self, name: str) -> None:
        self._disk.write_text(self._kept(name).read_text())

    def delete_snapshot(self, name: str) -> None:
        self._kept(name).unlink()

    def resize(self, wanted: Size) -> Mapping[str, Any]:
        if wanted.disk_gib == 4096:
            raise DriverError("The folder is full")
        self._state.with_name("size").write_text(f"{wanted.memory_mib} {wanted.disk_gib}")
        options = {"memory": wanted.memory_mib, "disk_size": wanted.disk_gib}
        return {key: value for key, value in options.items() if value is not None}

    def remove(self) -> None:
        shutil.rmtree(self._state.parent, ignore_errors=True)
