"""The catalogue: where images of other publishers are, and how their bytes are known to be right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from machine.download import Digest, is_url
from machine.errors import CatalogueError
from machine.paths import shipped_images, user_images
from machine.tomlfile import TomlFile, unknown

_TEXTS: Final = ("os", "os_version")
_PLACE: Final = ("url", "checksums", "digest")


@dataclass(frozen=True, slots=True)
class Source:
    """One image for one architecture. Either ``checksums`` (the URL of a checksum file) or
    ``digest`` says what its bytes have to add up to."""

    name: str
    os: str  # os-release ID
    os_version: str  # os-release VERSION_ID
    arch: str  # uname -m
    url: str
    checksums: str = ""
    digest: Digest | None = None
    own: bool = False  # from the user's catalogue


def sources(arch: str) -> dict[str, Source]:
    """By name, those for an architecture: the user's own in place of shipped ones. Raises
    CatalogueError with file, line and key."""
    files = [(shipped_images(), False)]
    if user_images().exists():
        files.append((user_images(), True))
    return {
        each.name: each for path, own in files for each in read(path, own=own) if each.arch == arch
    }


def read(path: Path, *, own: bool = False) -> Iterator[Source]:
    """Every entry of a catalogue file. Raises CatalogueError."""
    file = TomlFile.read(path, CatalogueError)
    for name, entry in file.values.items():
        if not isinstance(entry, dict):
            raise file.mistake((name,), "must be a table: [NAME]")
        texts: dict[str, Any] = {key: _text(file, (name, key), entry.get(key)) for key in _TEXTS}
        places = {key: value for key, value in entry.items() if key not in _TEXTS}
        for arch, place in places.items():
            if not isinstance(place, dict):
                raise file.mistake((name, arch), unknown(arch, _TEXTS))
            yield Source(name, **texts, arch=arch, own=own, **_place(file, (name, arch), place))


def _place(file: TomlFile, keys: tuple[str, str], place: dict[str, Any]) -> dict[str, Any]:
    for key in place:
        if key not in _PLACE:
            raise file.mistake((*keys, key), unknown(key, _PLACE))
    texts: dict[str, Any] = {key: _text(file, (*keys, key), value) for key, value in place.items()}
    if "url" not in texts or ("checksums" in texts) == ("digest" in texts):
        raise file.mistake(keys, "needs `url`, and either `checksums` or `digest`")
    for key in ("url", "checksums"):
        if key in texts and not is_url(texts[key]):
            raise file.mistake(
                (*keys, key), f"is {texts[key]!r}, and must be an http or https URL of a file"
            )
    if "digest" in texts:
        try:
            texts["digest"] = Digest.parse(texts["digest"])
        except ValueError as exc:
            raise file.mistake((*keys, "digest"), str(exc)) from None
    return texts


def _text(file: TomlFile, keys: tuple[str, ...], value: object) -> str:
    if value is None:
        raise file.mistake(keys[:-1], f"has no `{keys[-1]}`")
    if not isinstance(value, str) or not value:
        raise file.mistake(keys, f"is {value!r}, and must be text")
    return value
