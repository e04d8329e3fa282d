"""Small container images, as the archives and layouts that the field's tools write."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def tree(files: Mapping[str, bytes], links: Mapping[str, str] | None = None) -> bytes:
    """A layer: a tar of executable files and of symbolic links."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755
            tar.addfile(member, io.BytesIO(content))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    return written.getvalue()


def busybox() -> bytes:
    """The layer that other layers stand on."""
    programs = ("sh", "cat", "httpd", "hostname", "sleep")
    content = Path("/bin/busybox").read_bytes()
    return tree({"bin/busybox": content}, {f"bin/{name}": "busybox" for name in programs})


def config(layers: Sequence[bytes], arch: str = "amd64", **more: Any) -> bytes:
    described = {
        "architecture": arch,
        "os": "linux",
        "config": {"Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(each) for each in layers]},
        **more,
    }
    return json.dumps(described).encode()


def docker_archive(path: Path, images: Mapping[str, Sequence[bytes]], arch: str = "amd64") -> Path:
    """As docker save before 25 has it, the layers of images that share them once."""
    manifest, files = [], {}
    for name, layers in images.items():
        described = config(layers, arch)
        place = f"{digest(described)[7:]}.json"
        files[place] = described
        places = [f"{digest(each)[7:]}/layer.tar" for each in layers]
        files.update(zip(places, layers, strict=True))
        manifest.append({"Config": place, "RepoTags": [name] if name else None, "Layers": places})
    return packed(path, {**files, "manifest.json": json.dumps(manifest).encode()})


def packed(path: Path, files: Mapping[str, bytes]) -> Path:
    path.write_bytes(tree(files))
    return path


def oci_files(
    images: Mapping[str, Sequence[bytes]], arch: str = "amd64", *, zipped: bool = True
) -> dict[str, bytes]:
    """What an OCI layout has in it, the layers compressed unless said otherwise."""
    blobs: dict[str, bytes] = {}

    def put(content: bytes, kind: str, **more: Any) -> dict[str, Any]:
        blobs[f"blobs/sha256/{digest(content)[7:]}"] = content
        media = f"application/vnd.oci.image.{kind}"
        return {"mediaType": media, "digest": digest(content), "size": len(content), **more}

    manifests = []
    for name, layers in images.items():
        stored = [gzip.compress(each, 1, mtime=0) if zipped else each for each in layers]
        suffix = "+gzip" if zipped else ""
        manifest = {
            "schemaVersion": 2,
            "config": put(config(layers, arch), "config.v1+json"),
            "layers": [put(each, f"layer.v1.tar{suffix}") for each in stored],
        }
        called = {"org.opencontainers.image.ref.name": name}
        manifests.append(put(json.dumps(manifest).encode(), "manifest.v1+json", annotations=called))
    index = {"schemaVersion": 2, "manifests": manifests}
    layout = {"imageLayoutVersion": "1.0.0"}
    return {
        **blobs,
        "index.json": json.dumps(index).encode(),
        "oci-layout": json.dumps(layout).encode(),
    }


def written(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder
