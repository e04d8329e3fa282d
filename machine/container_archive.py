"""Reading container images out of docker archives and OCI layouts, as files or folders.

A docker archive is a tar with manifest.json (what `docker save` writes); an OCI layout is a folder,
or a tar of one, with index.json and blobs/ (OCI image-spec, image-layout.md). Nothing is unpacked:
layers stay where they are until somebody reads them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, Final

from machine import container_files
from machine.container_files import Files, Folder
from machine.container_image import Blob, Image, Layer, chain, damaged, full_name
from machine.errors import ArchiveError, BadOption

SMALL: Final = 32 << 20
"""Bytes that a manifest or a configuration may have."""
DEEP: Final = 8
"""Indexes in indexes."""
_DIGEST: Final = re.compile(r"(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})")
_NAMED_BY_DIGEST: Final = re.compile(r"(?:.*/)?([0-9a-f]{64})(?:\.json)?")
_ROOT: Final = ("bin", "bin/sh", "etc", "usr")
"""What there may be in a system's file tree."""


@contextmanager
def opened(path: Path, spool: IO[bytes]) -> Iterator[list[Image]]:
    """The images in a file or folder, to be read while this is open. An archive that is compressed
    as a whole is unpacked into ``spool``, a temporary file. Raises ArchiveError, and OSError of the
    spool."""
    with ExitStack() as stack:
        try:
            if path.is_dir():
                files: Files = Folder(path, stack)
            else:
                file = stack.enter_context(path.open("rb"))
                files = container_files.tar(path, container_files.plain(path, file, spool))
            found = images(files, str(path))
        except FileNotFoundError:
            raise ArchiveError(
                f"There is no file or folder {path}",
                hint="An image that is on a machine: machine push --from MACHINE IMAGE NAME...",
            ) from None
        except OSError as exc:
            if exc.filename is None:
                raise  # the spool's
            raise ArchiveError(f"{path} cannot be read: {exc.strerror}") from exc
        yield found


def read(file: IO[bytes], label: str) -> list[Image]:
    """The images in a tar archive that is not compressed. Raises ArchiveError."""
    return images(container_files.tar(Path(label), file), label)


def images(files: Files, label: str) -> list[Image]:
    """Raises ArchiveError where there are none, or where what describes them is damaged."""
    try:
        if manifest := files.blob("manifest.json"):
            found = [_of_docker(files, each) for each in _parsed(manifest, list)]
        elif index := files.blob("index.json"):
            found = list(_of_index(files, _parsed(index, dict), ""))
        else:
            raise _no_image(label, files)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as exc:
        text = f"{type(exc).__name__}: {exc}"
        raise damaged(label, f"what describes its images cannot be understood\n{text}") from exc
    if not found:
        raise damaged(label, "there is no image in it")
    return found


def _of_docker(files: Files, entry: Mapping[str, Any]) -> Image:
    name = entry["Config"]
    config = _required(files, name).content(SMALL)
    named = _NAMED_BY_DIGEST.fullmatch(name)
    if named and hashlib.sha256(config).hexdigest() != named[1]:
        raise damaged(name, "its content is not what its name says")
    blobs = [(files.blob(each), _digest_in(each)) for each in entry["Layers"]]
    return _image(config, blobs, tuple(map(full_name, entry.get("RepoTags") or ())))


def _digest_in(name: str) -> str:
    """An OCI blob's own, by its place."""
    found = re.fullmatch(r"(?:\./)?blobs/sha256/([0-9a-f]{64})", name)
    return f"sha256:{found[1]}" if found else ""


def _of_index(
    files: Files, index: Mapping[str, Any], label: str, depth: int = DEEP
) -> Iterator[Image]:
    """An index may be of images, of one image's platforms, or of indexes. It may name platforms
    that nobody fetched, and what was signed or attested about an image."""
    if not depth:
        raise ValueError("its indexes never end")
    for entry in index["manifests"]:
        own = label or _label(entry.get("annotations") or {})
        if (entry.get("platform") or {}).get("os") == "unknown":
            continue
        place = _place(entry["digest"])
        blob = files.blob(place)
        if blob is None and (label or len(index["manifests"]) > 1):
            continue
        found = _verified(blob or _required(files, place), entry["digest"])
        if "manifests" in found:
            yield from _of_index(files, found, own, depth - 1)
        elif "config" in found:
            yield _of_manifest(files, found, own)


def _of_manifest(files: Files, manifest: Mapping[str, Any], label: str) -> Image:
    described = manifest["config"]["digest"]
    config = _required(files, _place(described)).content(SMALL)
    _require(config, described, "its configuration")
    layers = manifest["layers"]
    if any("encrypted" in each["mediaType"] for each in layers):
        raise ArchiveError(f"The layers of {label or 'the image'} are encrypted")
    blobs = [(files.blob(_place(each["digest"])), each["digest"]) for each in layers]
    names: tuple[str, ...] = ()
    if ":" in label or "/" in label:
        try:
            names = (full_name(label),)
        except BadOption:
            names = ()
    return _image(config, blobs, names, label)


def _image(
    config: bytes,
    blobs: Sequence[tuple[Blob | None, str]],
    names: tuple[str, ...],
    label: str = "",
) -> Image:
    described = json.loads(config)
    diff_ids = described["rootfs"]["diff_ids"]
    if not all(isinstance(each, str) and _DIGEST.fullmatch(each) for each in diff_ids):
        raise ValueError("the digest of a layer is none")
    if len(diff_ids) != len(blobs):
        raise ValueError(f"{len(diff_ids)} layers are described, and {len(blobs)} listed")
    layers = tuple(
        Layer(diff_id, chain_id, blob, digest)
        for diff_id, chain_id, (blob, digest) in zip(diff_ids, chain(diff_ids), blobs, strict=True)
    )
    platform = f"{described['os']}/{described['architecture']}"
    return Image(config, platform, layers, names, label)


def _label(annotations: Mapping[str, str]) -> str:
    """containerd writes the whole name; OCI's own may be a tag alone."""
    found = annotations.get("io.containerd.image.name") or annotations.get(
        "org.opencontainers.image.ref.name", ""
    )
    if not isinstance(found, str):
        raise TypeError("an image's name is no text")
    return found


def _place(digest: str) -> str:
    if not _DIGEST.fullmatch(digest):
        raise ValueError(f"{digest!r} is no digest")
    return f"blobs/{digest.replace(':', '/')}"


def _verified(blob: Blob, digest: str) -> dict[str, Any]:
    _require(blob.content(SMALL), digest, blob.name)
    found: dict[str, Any] = _parsed(blob, dict)
    return found


def _require(content: bytes, digest: str, name: str) -> None:
    algorithm, _, wanted = digest.partition(":")
    if hashlib.new(algorithm, content).hexdigest() != wanted:
        raise damaged(name, "its content is not what its digest says")


def _required(files: Files, name: str) -> Blob:
    found = files.blob(name)
    if found is None:
        raise damaged(name, "it is not in the archive")
    return found


def _parsed(blob: Blob, kind: type) -> Any:
    found = json.loads(blob.content(SMALL))
    if not isinstance(found, kind):
        raise TypeError(f"{blob.name} is no {kind.__name__}")
    return found


def _no_image(label: str, files: Files) -> ArchiveError:
    hint = "It takes what docker save writes, and OCI layouts: folders, or a tar of one"
    if any(name in files for name in _ROOT):
        hint = (
            "It is a file system, and no image yet. On a machine it becomes one, for the others too:\n"
            "machine ssh MACHINE docker import - NAME:TAG <FILE.tar\n"
            "machine push --from MACHINE NAME:TAG NAME..."
        )
    return ArchiveError(f"There is no image in {label}", hint=hint)
