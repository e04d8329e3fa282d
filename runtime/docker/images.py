"""Images into and out of dockerd, by archives that have only the layers it lacks.

dockerd opens no file of a layer whose chain id it knows (26.1, image/tarexport/load.go), and nobody
but itself compares: what it unpacks has to have the diff_id that the image's configuration says. With
containerd's store it knows no layers so, and gets all of them.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from machine.container_image import Image, Images, KnownImage, Layer, chain
from machine.errors import EngineError, EngineFull

if TYPE_CHECKING:
    from docker import APIClient

CONTAINERD: Final = ["driver-type", "io.containerd.snapshotter.v1"]
"""In `docker info`, of an engine whose images are containerd's."""
FULL: Final = "no space left on device"
GONE: Final = "no such file or directory"
"""A layer's file, of a layer that it had when it was asked."""
BLOCK: Final = 512
SLOW: Final = 600
"""Seconds that it may be silent while it unpacks a layer, or reads one."""


class DockerImages(Images):
    def __init__(self, client: APIClient) -> None:
        self._client: Any = client  # half of it has no types

    def platform(self) -> str:
        version: dict[str, Any] = self._client.version()
        return f"{version['Os']}/{version['Arch']}"

    def folder(self) -> str:
        return "" if self._is_containerd() else str(self._client.info()["DockerRootDir"])

    def layers(self) -> frozenset[str]:
        if self._is_containerd():
            return frozenset()
        listed = {each["Id"] for each in self._client.images(all=True)}
        return frozenset(each for id_ in listed for each in chain(self._diff_ids(id_)))

    def find(self, ref: str) -> KnownImage | None:
        if not (found := self._inspected(ref)):
            return None
        names = tuple(found.get("RepoTags") or ())
        return KnownImage(found["Id"], names, len(found["RootFS"].get("Layers") or ()))

    def room(self, layers: Sequence[Layer]) -> int:
        """The archive lies in its folder until the last layer is out of it."""
        return 2 * sum(each.size for each in layers)

    def load(
        self,
        image: Image,
        layers: Sequence[Layer],
        names: Sequence[str],
        progress: Callable[[int, int], None],
    ) -> int:
        files = {each.diff_id: each for each in layers}  # two may have the same content
        total = sum(each.size for each in files.values())
        sent = 0

        def pieces() -> Iterator[bytes]:
            nonlocal sent
            for piece in archive(image, list(files.values()), names):
                yield piece
                sent += len(piece)
                progress(min(sent, total), total)

        from docker.errors import APIError

        self._client.timeout = SLOW
        try:
            for line in self._client.load_image(pieces()):
                if said := line.get("error"):
                    raise refusal(said)
        except APIError as exc:
            raise refusal(str(exc.explanation or exc)) from exc
        return sent

    def tag(self, ref: str, name: str) -> None:
        repository, _, tag = name.rpartition(":")
        self._client.tag(ref, repository, tag, force=True)

    def save(self, ref: str) -> Iterator[bytes]:
        self._client.timeout = SLOW
        yield from self._client.get_image(ref)

    def _is_containerd(self) -> bool:
        return CONTAINERD in (self._client.info().get("DriverStatus") or ())

    def _diff_ids(self, ref: str) -> list[str]:
        """None of an image that was removed meanwhile."""
        found = self._inspected(ref)
        return list(found["RootFS"].get("Layers") or ()) if found else []

    def _inspected(self, ref: str) -> dict[str, Any] | None:
        from docker.errors import NotFound

        try:
            found: dict[str, Any] = self._client.inspect_image(ref)
        except NotFound:
            return None
        return found


def archive(image: Image, layers: Sequence[Layer], names: Sequence[str]) -> Iterator[bytes]:
    """A docker archive in pieces, with the files of these layers alone."""
    config = f"{image.id.removeprefix('sha256:')}.json"
    described = {
        "Config": config,
        "RepoTags": list(names) or None,
        "Layers": [_file(each) for each in image.layers],
    }
    for name, content in (
        ("manifest.json", json.dumps([described]).encode()),
        (config, image.config),
    ):
        yield _header(name, len(content)) + content + _padding(len(content))
    for layer in layers:
        assert layer.blob, "verified by the caller"
        yield _header(_file(layer), layer.size)
        yield from layer.blob.pieces()
        yield _padding(layer.size)
    yield bytes(2 * BLOCK)


def refusal(said: str) -> EngineError:
    """What dockerd's words become."""
    if FULL in said:
        return EngineFull(
            "The engine's disk is full: the image was not taken",
            details=said,
            hint="Remove what nobody needs there (docker system prune), or use a larger disk",
        )
    again = "Was an image removed there meanwhile? The same command sends its layers, too"
    return EngineError(
        "The engine did not take the image", details=said, hint=again if GONE in said else ""
    )


def _file(layer: Layer) -> str:
    return f"{layer.diff_id.removeprefix('sha256:')}.tar"


def _header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size = size
    return member.tobuf(tarfile.GNU_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % BLOCK)
