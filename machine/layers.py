"""What was done once and is kept: systems with their engine, and the memory of booted ones."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from machine import manifest
from machine.errors import LayerError, LayerNotFound
from machine.events import Reporter
from machine.folder_cache import FolderCache
from machine.model import Image
from machine.paths import cache_root

MANIFEST: Final = "layer.json"
SCHEMA: Final = 1
KEY_DIGITS: Final = 16
"""Of a key's 64: what folders are called, and what is shown."""
_USED: Final = "used"


class LayerKind(StrEnum):
    """How deep a layer goes."""

    ENGINE = "engine"  # an image with an engine installed, and nobody's identity
    WARM = "warm"  # one that was booted, with its memory


@dataclass(frozen=True, slots=True)
class Layer:
    """A finished layer of this computer. Its key is the hash of ``inputs``, everything that it was
    made from."""

    key: str
    kind: LayerKind
    title: str  # "debian-13 + docker 26.1.5"
    inputs: Mapping[str, str]
    facts: Mapping[str, Any]  # what only its making showed
    folder: Path
    files: manifest.Entries
    created: str

    @property
    def size(self) -> int:
        """Bytes of its files here."""
        return sum(int(each["size"]) for each in self.files.values())

    @property
    def used(self) -> datetime.datetime | None:
        """When a create last used it."""
        try:
            stamp = (self.folder / _USED).stat().st_mtime
        except OSError:
            return None
        return datetime.datetime.fromtimestamp(stamp, datetime.UTC)

    def note_use(self) -> None:
        """Called by a create that builds on it."""
        (self.folder / _USED).touch()

    def on(self, image: Image) -> Image:
        """The image that it is of, with this layer's disk in its place."""
        return replace(
            image,
            digest=self.files["disk.qcow2"]["sha256"],
            disk=self.folder / "disk.qcow2",
            tree=None,
        )


def key_of(kind: LayerKind, inputs: Mapping[str, str]) -> str:
    text = json.dumps([SCHEMA, kind, dict(sorted(inputs.items()))])
    return hashlib.sha256(text.encode()).hexdigest()


class LayerCache(FolderCache):
    """``~/.cache/machine/layers/KEY``: one folder a layer, complete or not there at all."""

    what = "layer"
    error = LayerError

    def __init__(self, root: Path | None = None) -> None:
        super().__init__(root or cache_root() / "layers")

    def all(self) -> list[Layer]:
        """Those whose manifest can be read, the oldest first."""
        found = [each for each in self._all() if isinstance(each, Layer)]
        return sorted(found, key=lambda layer: layer.created)

    def problems(self) -> Sequence[LayerError]:
        """One error for each folder that is no layer any more."""
        return [each for each in self._all() if isinstance(each, LayerError)]

    def damaged(self) -> list[str]:
        """Names of folders that are no layer any more, or not whole."""
        good = set()
        for layer in self.all():
            with suppress(LayerError):
                self.check(layer)
                good.add(layer.folder.name)
        return sorted({each.parent.name for each in self._folders()} - good)

    def get(self, ref: str) -> Layer:
        """By the first characters of its key. Raises LayerNotFound."""
        found = [layer for layer in self.all() if ref and layer.key.startswith(ref)]
        if len(found) != 1:
            how = "names several layers" if found else "names no layer"
            raise LayerNotFound(f"{ref!r} {how}", hint="machine layer ls shows them")
        return found[0]

    def find(self, kind: LayerKind, inputs: Mapping[str, str], report: Reporter) -> Layer | None:
        """The layer of those inputs, if it is here and whole. One that was changed is compared
        with its digests, and left out, with a word, if it differs. Takes no lock."""
        key = key_of(kind, inputs)
        folder = self.root / key[:KEY_DIGITS]
        if not (folder / MANIFEST).exists():
            return None
        try:
            layer = _read(folder)
            self.check(layer)
        except LayerError as exc:
            report.warn(f"{exc.brief}; it is not used")
            return None
        return layer if layer.key == key else None

    def ensure(
        self,
        kind: LayerKind,
        inputs: Mapping[str, str],
        title: str,
        make: Callable[[Path], Mapping[str, Any]],
        report: Reporter,
    ) -> Layer:
        """The layer of those inputs; made now if it is missing or damaged. ``make`` fills a folder
        and answers facts. Several processes at once make it once; a kill leaves nothing."""
        if found := self.find(kind, inputs, Reporter()):
            return found
        key = key_of(kind, inputs)
        name = key[:KEY_DIGITS]
        with self.change(name, report) as work:
            if found := self.find(kind, inputs, report):
                return found
            new = work / "new"
            new.mkdir(mode=0o755)
            facts = make(new)
            described = {
                "schema": SCHEMA,
                "key": key,
                "kind": kind,
                "title": title,
                "inputs": dict(inputs),
                "facts": dict(facts),
                "files": manifest.entries(new, sorted(each.name for each in new.iterdir())),
                "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            }
            (new / MANIFEST).write_text(json.dumps(described, indent=2))
            self.put(name, new, work)
            return _read(self.root / name)

    def check(self, layer: Layer) -> None:
        """Cheap where nothing was touched: sizes and times. Raises LayerError for a layer whose
        content is not what it was, and for memory that others may read."""
        try:
            if manifest.changed(layer.folder, layer.files):
                self.verify(layer)
        except (OSError, KeyError, TypeError, ValueError) as exc:
            raise _damaged(layer.folder, str(exc)) from exc
        _private(layer)

    def verify(self, layer: Layer) -> None:
        """Read every file and compare its digest. Raises LayerError."""
        try:
            name = manifest.damaged(layer.folder, layer.files)
        except OSError as exc:
            raise _damaged(layer.folder, str(exc)) from exc
        if name:
            raise _damaged(layer.folder, f"{name} is not what was written")
        _private(layer)

    def remove(self, name: str) -> None:
        """By a layer's whole folder name, damaged or not. Twice is fine."""
        with self.change(name, Reporter()) as work:
            if (self.root / name).exists():
                (self.root / name).rename(work / "removed")

    def _folders(self) -> list[Path]:
        """Of manifests."""
        found = self.root.glob(f"*/{MANIFEST}")
        return sorted(path for path in found if not path.parent.name.startswith("."))

    def _all(self) -> Iterator[Layer | LayerError]:
        for path in self._folders():
            try:
                yield _read(path.parent)
            except LayerError as exc:
                yield exc


def _read(folder: Path) -> Layer:
    try:
        data = json.loads((folder / MANIFEST).read_text())
        if data["schema"] != SCHEMA:
            raise ValueError(f"schema {data['schema']}")
        return Layer(
            key=data["key"],
            kind=LayerKind(data["kind"]),
            title=data["title"],
            inputs=data["inputs"],
            facts=data["facts"],
            folder=folder,
            files={name: dict(entry) for name, entry in data["files"].items()},
            created=data["created"],
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise _damaged(folder, repr(exc)) from exc


def _private(layer: Layer) -> None:
    """Memory holds whatever its machine had in it: nobody else may have looked, or written."""
    if layer.kind is not LayerKind.WARM:
        return
    for name in layer.files:
        found = (layer.folder / name).stat()
        if found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise LayerError(
                f"{name} of the layer {layer.folder.name} may be read or written by others",
                hint=f"machine layer prune {layer.folder.name}",
            )


def _damaged(folder: Path, why: str) -> LayerError:
    return LayerError(
        f"The layer {folder.name} is damaged ({why})",
        hint=f"machine layer prune {folder.name}   (the next create builds it again)",
    )
