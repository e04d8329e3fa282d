from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path

import pytest

from machine.engine import Archive, Engine
from machine.errors import BundleError, PreflightError
from machine.events import Event, Note, Reporter
from machine.runtime.bundle import ANY, Bundle, BundleCache
from machine.runtime.bundle.archive import check
from machine.runtime.bundle.lock import describe
from machine.runtime.docker.engine import DockerEngine
from machine.runtime.docker.static import ARCHIVE, PATH
from tests import archives

ROOT = Path(__file__).parents[2]


class Other(DockerEngine):
    """A second engine: all that a static bundle needs of it is said here."""

    name = "other"
    archive = Archive(
        file="other-full-{version}-linux-{goarch}.tar.gz",
        url="https://example.org/other/v{version}",
        programs=("bin/otherd", "sbin/tool"),
    )


def build(
    cache: BundleCache, source: Path, engine: type[Engine] = DockerEngine, **more: str
) -> Bundle:
    return cache.build_static(engine, source, "x86_64", Reporter(), **more)


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def special(name: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = tarfile.FIFOTYPE
    return member


def test_upstreams_archive_is_taken_over_unchanged(tmp_path: Path) -> None:
    source = archives.docker(tmp_path / "docker-28.0.1.tgz")
    bundle = build(BundleCache(tmp_path / "cache"), source)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    assert bundle.name == "docker-static-28.0.1-x86_64"
    assert (bundle.kind, bundle.version, bundle.os_id) == ("static", "28.0.1", ANY)
    assert bundle.files == (("archive/docker-28.0.1.tgz", digest),)
    with tarfile.open(bundle.path) as tar:
        held = tar.extractfile("archive/docker-28.0.1.tgz")
        assert held
        assert held.read() == source.read_bytes()
        lock = tar.extractfile("lock.json")
        assert lock
        assert json.load(lock)["files"][0]["size"] == source.stat().st_size


def test_the_same_archive_makes_the_same_bytes(tmp_path: Path) -> None:
    source = archives.docker(tmp_path / "docker-28.0.1.tgz")
    first, second = (build(BundleCache(tmp_path / name), source) for name in ("a", "b"))
    assert first.sha256 == second.sha256
    renamed, digest = source.rename(tmp_path / "mine.tgz"), first.files[0][1].upper()
    third = build(BundleCache(tmp_path / "c"), renamed, version="28.0.1", sha256=digest)
    assert third.sha256 == first.sha256


def test_a_second_engine_needs_nothing_but_its_archive(tmp_path: Path) -> None:
    source = archives.pack(
        tmp_path / "other-full-2.1-linux-amd64.tar.gz",
        [("bin/otherd", archives.program()), ("sbin/tool", archives.program()), ("share/x", b"")],
    )
    cache = BundleCache(tmp_path / "cache")
    assert build(cache, source, Other).name == "other-static-2.1-x86_64"
    assert cache.find("other", "alpine", "3.21", "x86_64", "static")
    assert cache.find("docker", "alpine", "3.21", "x86_64", "static") is None
    assert Other.archive
    assert Other.archive.location("aarch64", "3") == (
        "https://example.org/other/v3/other-full-3-linux-arm64.tar.gz"
    )


def test_it_is_found_for_every_guest_of_its_architecture_and_the_newest_wins(
    tmp_path: Path,
) -> None:
    cache = BundleCache(tmp_path / "cache")
    for version in ("28.0.9", "28.0.10", "28.1.0-rc.1", "27.5.1"):
        build(cache, archives.docker(tmp_path / f"docker-{version}.tgz"))
    for guest in (("debian", "13"), ("alpine", "3.21"), ("fedora", "42")):
        found = cache.find("docker", *guest, "x86_64", "static")
        assert found
        assert found.version == "28.1.0-rc.1"
    build(cache, archives.docker(tmp_path / "docker-28.1.0.tgz"))
    newest = cache.find("docker", "debian", "13", "x86_64", "static")
    assert newest
    assert newest.version == "28.1.0"
    assert cache.find("docker", "debian", "13", "aarch64", "static") is None
    assert cache.find("docker", "debian", "13", "x86_64", "packages") is None
    assert cache.with_digest(newest.sha256) == newest
    assert cache.with_digest("") is None


def test_a_guest_that_has_none_is_told_what_to_type(tmp_path: Path) -> None:
    cache = BundleCache(tmp_path / "cache")
    typed = "machine bundle build docker --kind static --from https://"
    with pytest.raises(PreflightError) as early:
        cache.preflight(DockerEngine, "static")
    assert typed in early.value.hint
    cache.preflight(DockerEngine, "packages")  # those are built
    build(cache, archives.docker(tmp_path / "docker-28.0.1.tgz"))
    cache.preflight(DockerEngine, "static")
    with pytest.raises(BundleError, match="no static bundle of docker for aarch64") as late:
        cache.ensure(DockerEngine, "debian", "13", "aarch64", "static", Reporter())
    assert "static/stable/aarch64/docker-VERSION.tgz" in late.value.hint
    assert typed in late.value.hint


def test_a_version_is_read_from_upstreams_name_alone(tmp_path: Path) -> None:
    assert ARCHIVE.version_of("docker-28.0.0-rc.1.tgz", "x86_64") == "28.0.0-rc.1"
    for name in ("docker-rootless-extras-28.0.0.tgz", "docker-.tgz", "docker.tgz", "docker-28.tar"):
        assert ARCHIVE.version_of(name, "x86_64") == ""
    source = archives.docker(tmp_path / "docker.tgz")
    for given in ("", "../28", "28/0", "latest"):
        with pytest.raises(BundleError, match="does not say which version") as told:
            build(BundleCache(tmp_path / "cache"), source, version=given)
        assert "--version" in told.value.hint


def test_another_digest_is_refused(tmp_path: Path) -> None:
    source = archives.docker(tmp_path / "docker-28.0.1.tgz")
    cache = BundleCache(tmp_path / "cache")
    with pytest.raises(BundleError, match="another digest") as told:
        build(cache, source, sha256="0" * 64)
    assert hashlib.sha256(source.read_bytes()).hexdigest() in told.value.details
    assert cache.list() == []
    assert not list((tmp_path / "cache").glob("*.tar"))


def test_a_program_that_is_missing_is_named(tmp_path: Path) -> None:
    source = archives.docker(tmp_path / "docker-28.0.1.tgz", runc=b"", ctr=b"")
    with pytest.raises(BundleError, match=r"does not hold docker/ctr, docker/runc"):
        check(source, ARCHIVE, "x86_64")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (archives.program(archives.AARCH64), "made for aarch64"),
        (archives.program(archives.ARM), "made for machine 40"),
        (b"#!/bin/sh\n" * 20, "no program"),
        (b"\x7fELF", "no program"),
        (archives.program().replace(b"ELF\x02", b"ELF\x01"), "no program"),  # 32 bits
    ],
)
def test_a_program_for_another_computer_is_refused(
    tmp_path: Path, content: bytes, words: str
) -> None:
    source = archives.docker(tmp_path / "docker-28.0.1.tgz", dockerd=content)
    with pytest.raises(BundleError, match=f"docker/dockerd in docker-28.0.1.tgz is {words}"):
        check(source, ARCHIVE, "x86_64")


def test_the_whole_archive_of_another_computer_can_be_bundled_for_it(tmp_path: Path) -> None:
    source = archives.docker(tmp_path / "docker-28.0.1.tgz", archives.AARCH64)
    with pytest.raises(BundleError, match="aarch64") as told:
        check(source, ARCHIVE, "x86_64")
    assert "--arch aarch64" in told.value.hint
    assert check(source, ARCHIVE, "aarch64") == []


@pytest.mark.parametrize(
    ("member", "words"),
    [
        ("/etc/cron.d/x", "leads out"),
        ("docker/../../x", "leads out"),
        ("..", "leads out"),
        (link("docker/x", "/etc/passwd"), "is a link to"),
        (link("docker/x", "../../x"), "is a link to"),
        (link("docker/x", "../x", tarfile.LNKTYPE), "is a link to"),
        (special("docker/x"), "neither file"),
        ("docker/dockerd", "twice"),
    ],
)
def test_what_leads_out_of_the_archive_is_refused(
    tmp_path: Path, member: tarfile.TarInfo | str, words: str
) -> None:
    whole = [(name, archives.program()) for name in ARCHIVE.programs]
    source = archives.pack(tmp_path / "docker-28.0.1.tgz", [*whole, (member, b"")])
    with pytest.raises(BundleError, match=f"not to be trusted: .*{words}"):
        check(source, ARCHIVE, "x86_64")


def test_a_link_in_a_programs_place_is_no_program(tmp_path: Path) -> None:
    entries: list[tuple[tarfile.TarInfo | str, bytes]] = [
        (name, archives.program()) for name in ARCHIVE.programs if name != "docker/runc"
    ]
    entries.append((link("docker/runc", "crun"), b""))
    source = archives.pack(tmp_path / "docker-28.0.1.tgz", entries)
    with pytest.raises(BundleError, match="does not hold docker/runc"):
        check(source, ARCHIVE, "x86_64")


@pytest.mark.parametrize("damage", ["text", "tar", "cut", "end", "checksum"])
def test_what_is_no_whole_archive_is_refused(tmp_path: Path, damage: str) -> None:
    source = archives.docker(tmp_path / "docker-28.0.1.tgz")
    content = source.read_bytes()
    if damage == "text":
        source.write_text("<html>404</html>")
    elif damage == "tar":
        with tarfile.open(source, "w") as tar:
            tar.add(__file__, "docker/dockerd")
    elif damage == "cut":
        source.write_bytes(content[: len(content) // 2])
    elif damage == "end":
        source.write_bytes(content[:-8])
    else:
        source.write_bytes(content[:-8] + bytes(4) + content[-4:])
    with pytest.raises(BundleError, match="no tar archive in gzip, or not all of it"):
        check(source, ARCHIVE, "x86_64")


def test_an_archive_that_is_not_there(tmp_path: Path) -> None:
    for source in (tmp_path / "docker-28.0.1.tgz", tmp_path):
        with pytest.raises(BundleError, match="cannot be taken over"):
            build(BundleCache(tmp_path / "cache"), source, version="28.0.1")


def test_programs_that_need_libraries_are_warned_of(tmp_path: Path) -> None:
    source = archives.docker(tmp_path / "docker-28.0.1.tgz", dockerd=archives.program(dynamic=True))
    assert check(source, ARCHIVE, "x86_64") == ["docker/dockerd"]
    seen: list[Event] = []
    cache = BundleCache(tmp_path / "cache")
    cache.build_static(DockerEngine, source, "x86_64", Reporter(seen.append))
    (note,) = [event for event in seen if isinstance(event, Note)]
    assert note.warning
    assert "1 of its 8 programs" in note.text


def test_one_damaged_bundle_hides_no_other(tmp_path: Path) -> None:
    cache = BundleCache(tmp_path / "cache")
    good = build(cache, archives.docker(tmp_path / "docker-28.0.1.tgz"))
    build(cache, archives.docker(tmp_path / "docker-28.0.2.tgz")).path.unlink()
    (cache.root / "text.json").write_text("{")
    (cache.root / "keys.json").write_text("{}")
    (cache.root / "keys.tar").write_text("")
    assert cache.list() == [good]
    assert [each.brief.split()[2] for each in cache.problems()] == [
        "docker-static-28.0.2-x86_64",
        "keys",
        "text",
    ]
    for name in ("docker-static-28.0.2-x86_64", "keys", "text"):
        with pytest.raises(BundleError, match="is damaged"):
            cache.get(name)
        cache.remove(name)
    assert cache.problems() == []
    cache.verify(good)


def test_a_changed_file_does_not_verify(tmp_path: Path) -> None:
    cache = BundleCache(tmp_path / "cache")
    bundle = build(cache, archives.docker(tmp_path / "docker-28.0.1.tgz"))
    content = bytearray(bundle.path.read_bytes())
    content[-2000] ^= 1
    bundle.path.write_bytes(content)
    with pytest.raises(BundleError, match="is damaged"):
        cache.verify(bundle)


@pytest.mark.parametrize("name", ["../outside", "/outside", "", ".", "a/b"])
def test_a_name_does_not_lead_out_of_the_cache(tmp_path: Path, name: str) -> None:
    cache = BundleCache(tmp_path / "cache")
    cache.root.mkdir()
    (tmp_path / "outside.json").write_text("{}")
    for method in (cache.get, cache.remove):
        with pytest.raises(BundleError, match="There is no bundle"):
            method(name)
    assert (tmp_path / "outside.json").exists()


def test_the_unit_looks_for_programs_where_the_engine_puts_them() -> None:
    unit = (ROOT / "runtime" / "docker" / "services" / "systemd" / "docker.service").read_text()
    assert f"Environment=PATH={PATH}\n" in unit


def packages(cache: BundleCache, work: Path, version: str) -> Bundle:
    """A bundle of one package, as ``build_packages`` adds it."""
    folder = work / version / "packages"
    folder.mkdir(parents=True)
    (folder / f"docker.io_{version}_amd64.deb").write_text(version)
    lock = describe(DockerEngine, version, "packages", "debian", "13", "x86_64", folder)
    cache.root.mkdir(exist_ok=True)
    return cache.add("docker-debian-13", lock, folder.parent)


def test_packages_that_are_built_again_leave_what_machines_go_back_to(tmp_path: Path) -> None:
    cache = BundleCache(tmp_path / "cache")
    older, newer = packages(cache, tmp_path, "26.1.5-9"), packages(cache, tmp_path, "26.1.5-10")
    names = ["docker-debian-13", f"docker-debian-13~{older.sha256[:12]}"]
    assert [each.name for each in cache.list()] == names
    assert cache.find("docker", "debian", "13", "x86_64", "packages") == newer
    for kept in (
        cache.with_packages({"docker.io": "26.1.5-9"}),
        cache.with_digest(older.sha256),
        cache.get(names[1]),
    ):
        assert kept and kept.version == "26.1.5-9"
        cache.verify(kept)
    assert cache.with_packages({"docker.io": "26.1.5-8"}) is None
    cache.remove(names[1])
    assert cache.list() == [newer]


def test_the_same_packages_are_kept_once(tmp_path: Path) -> None:
    cache = BundleCache(tmp_path / "cache")
    packages(cache, tmp_path / "1", "26.1.5-9")
    again = packages(cache, tmp_path / "2", "26.1.5-9")
    assert cache.list() == [again]
