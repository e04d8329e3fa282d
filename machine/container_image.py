"""Container images, and the contract of engines that take them: layers that one has are left out."""

from __future__ import annotations

import hashlib
import os
import re
import threading
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, Final

from machine.errors import ArchiveError, BadOption

PIECE: Final = 1 << 20
"""Bytes of an archive that are held at a time."""
GZIP: Final = b"\x1f\x8b"
COMPRESSED: Final = {
    "gzip": GZIP,
    "zstd": b"\x28\xb5\x2f\xfd",
    "xz": b"\xfd7zXZ\0",
    "bzip2": b"BZh",
}
"""What a file begins with."""
RUNS: Final = {"linux/amd64": {"linux/386"}, "linux/arm64": {"linux/arm"}}
"""What the processors of a platform run besides their own."""
_COMPONENT: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_HOST: Final = (
    r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?|\[[0-9a-fA-F:]+\](?::[0-9]{1,5})?"
)
_NAME: Final = re.compile(
    rf"(?:(?:{_HOST})/)?{_COMPONENT}(?:/{_COMPONENT})*(?P<tag>:[A-Za-z0-9_][\w.-]{{0,127}})?",
    re.ASCII,
)
_USUAL: Final = re.compile(r"^(?:index\.)?docker\.io/(?:library/)?")


@dataclass(frozen=True, slots=True)
class Blob:
    """A piece of a file that stays open. Threads may read it at the same time."""

    file: IO[bytes]
    offset: int
    size: int
    name: str  # to be told by

    def pieces(self) -> Iterator[bytes]:
        """Raises ArchiveError when the file cannot be read, or has become shorter."""
        at, end = self.offset, self.offset + self.size
        while at < end:
            try:
                piece = os.pread(self.file.fileno(), min(PIECE, end - at), at)
            except OSError as exc:
                raise ArchiveError(f"{self.name} cannot be read: {exc.strerror}") from exc
            if not piece:
                raise damaged(self.name, "it ends too early")
            at += len(piece)
            yield piece

    def content(self, most: int) -> bytes:
        """Of a small one, as a whole."""
        if self.size > most:
            raise damaged(self.name, f"{self.size} bytes, and at most {most} are expected")
        return b"".join(self.pieces())


@dataclass(frozen=True, slots=True)
class Layer:
    """What one step of a build changed, as a tar archive that may be compressed."""

    diff_id: str  # the digest of the tar
    chain_id: str  # of it upon those below it: OCI's image-spec, config.md
    blob: Blob | None  # None: the archive was made without it
    digest: str = ""  # of the blob as it is, where something says so

    @property
    def size(self) -> int:
        return self.blob.size if self.blob else 0

    def verify(self) -> None:
        """Read it once. Raises ArchiveError where it is not what its digest says. One that nothing
        but its diff_id is known of, and that only the engine can unpack, is left to the engine."""
        if self.blob is None:
            raise damaged(f"layer {self.diff_id}", "it is not in the archive")
        head = next(self.blob.pieces(), b"")
        if self.digest:
            wanted, got = self.digest, _digest(self.blob.pieces(), self.digest.partition(":")[0])
        elif head.startswith(GZIP):
            wanted, got = self.diff_id, _digest(_unzipped(self.blob))
        elif head.startswith(tuple(COMPRESSED.values())):
            return
        else:
            wanted, got = self.diff_id, _digest(self.blob.pieces())
        if got != wanted:
            raise damaged(self.blob.name, f"wanted {wanted}\ngot    {got}")


@dataclass(frozen=True)
class Image:
    """An image for one platform."""

    config: bytes
    platform: str  # "linux/amd64"
    layers: tuple[Layer, ...]  # the lowest first
    names: tuple[str, ...] = ()
    label: str = ""  # what an archive calls it where that is no name
    _verified: set[str] = field(default_factory=set, compare=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, compare=False, repr=False)

    @property
    def id(self) -> str:
        """By which engines know it: the digest of its configuration."""
        return f"sha256:{hashlib.sha256(self.config).hexdigest()}"

    @property
    def title(self) -> str:
        return ", ".join(self.names) or self.label or self.id[:19]

    def verify(self, layers: Sequence[Layer]) -> None:
        """Read each of these once, whoever asks. Raises ArchiveError."""
        with self._lock:
            for layer in layers:
                if layer.diff_id not in self._verified:
                    layer.verify()
                    self._verified.add(layer.diff_id)


@dataclass(frozen=True, slots=True)
class KnownImage:
    """One that an engine has."""

    id: str
    names: tuple[str, ...]
    layers: int


class Images(ABC):
    """The images of one engine, by its API while that is open. Every method may be called any
    number of times, and raises EngineUnreachable and EngineError."""

    @abstractmethod
    def platform(self) -> str:
        """What the engine runs: "linux/amd64"."""

    @abstractmethod
    def folder(self) -> str:
        """Where they are on the engine's host; "" where that is not told."""

    @abstractmethod
    def layers(self) -> frozenset[str]:
        """The chain ids of layers that ``load`` may leave out; none where they are not told."""

    @abstractmethod
    def find(self, ref: str) -> KnownImage | None:
        """By its id or name."""

    @abstractmethod
    def room(self, layers: Sequence[Layer]) -> int:
        """Bytes in ``folder`` that loading these takes at least, while it lasts."""

    @abstractmethod
    def load(
        self,
        image: Image,
        layers: Sequence[Layer],
        names: Sequence[str],
        progress: Callable[[int, int], None],
    ) -> int:
        """Hand over an image with those of its layers that the engine lacks, in bounded pieces;
        answers the bytes that were sent. ``progress`` is told bytes done and bytes in all. What had
        one of the names before loses it. Raises EngineFull, ArchiveError."""

    @abstractmethod
    def tag(self, ref: str, name: str) -> None:
        """Give an image that is there a further name."""

    @abstractmethod
    def save(self, ref: str) -> Iterator[bytes]:
        """An image as an archive, in pieces."""


def choose(
    images: Sequence[Image], platform: str, *, only: str = "", any_platform: bool = False
) -> Image:
    """The one for a platform: of several, that which ``only`` names. Raises ArchiveError."""
    named = [each for each in images if not only or _is_called(each, only)]
    if not named:
        raise ArchiveError(f"There is no image {only} in the archive", details=_titles(images))
    fitting = [each for each in named if each.platform == platform] or [
        each for each in named if each.platform in RUNS.get(platform, set()) or any_platform
    ]
    if not fitting:
        theirs = ", ".join(sorted({each.platform for each in named}))
        raise ArchiveError(
            f"The image is for {theirs}, and the machine is {platform}",
            hint="Build or save it for that platform; --any-platform sends it all the same",
        )
    if len({each.id for each in fitting}) > 1:
        raise ArchiveError(
            "There are several images in the archive",
            details=_titles(fitting),
            hint="Say which: --only IMAGE",
        )
    return fitting[0]


def full_name(text: str) -> str:
    """An image's name as engines list it, with its tag. Raises BadOption."""
    found = _NAME.fullmatch(_USUAL.sub("", text))
    if found is None or len(text) > 255:
        raise BadOption(
            f"{text!r} cannot be the name of an image",
            hint="NAME or NAME:TAG, the name in small letters: web, web:1.2, example.org/team/web:1.2",
        )
    return found[0] if found["tag"] else f"{found[0]}:latest"


def chain(diff_ids: Sequence[str]) -> list[str]:
    """The chain id of each layer, from those of the tars, the lowest first."""
    found: list[str] = []
    for each in diff_ids:
        both = f"{found[-1]} {each}" if found else ""
        found.append(f"sha256:{hashlib.sha256(both.encode()).hexdigest()}" if both else each)
    return found


def damaged(name: str, details: str) -> ArchiveError:
    return ArchiveError(f"The archive is damaged: {name}", details=details, hint="Make it anew")


def _is_called(image: Image, word: str) -> bool:
    if word in (*image.names, image.label, image.id):
        return True
    if len(word) >= 6 and image.id.removeprefix("sha256:").startswith(word.removeprefix("sha256:")):
        return True
    return f"{word}:latest" in image.names


def _titles(images: Sequence[Image]) -> str:
    return "\n".join(dict.fromkeys(f"{each.title} ({each.platform})" for each in images))


def _digest(pieces: Iterator[bytes], algorithm: str = "sha256") -> str:
    sum_ = hashlib.new(algorithm)
    for piece in pieces:
        sum_.update(piece)
    return f"{algorithm}:{sum_.hexdigest()}"


def _unzipped(blob: Blob) -> Iterator[bytes]:
    """gzip's members one after the other, in bounded pieces. Raises ArchiveError."""
    stream = zlib.decompressobj(wbits=31)
    try:
        for piece in blob.pieces():
            rest = piece
            while rest:
                if stream.eof:
                    stream = zlib.decompressobj(wbits=31)
                yield stream.decompress(rest, PIECE)
                rest = stream.unconsumed_tail or stream.unused_data
        yield stream.flush()
    except zlib.error as exc:
        raise damaged(blob.name, str(exc)) from exc
    if not stream.eof:
        raise damaged(blob.name, "it ends too early")
