"""Images that are pulled and imported by the program as a user runs it, from a server of our own."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from machine import catalogue
from machine.errors import CatalogueError, ImageError
from machine.events import Event, Note, Reporter
from machine.images import ImageCache
from tests.integration.files_server import FilesServer, Manner
from tests.integration.test_cli import machine

RAW = (bytes(510) + b"\x55\xaa") + random.Random(3).randbytes((2 << 20) - 512)
"""2 MiB that begin as a disk does."""


def qemu_img(*words: str | Path) -> None:
    subprocess.run(["qemu-img", *words], check=True, capture_output=True)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(scope="session")
def disk(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small qcow2, compressed, as publishers make them."""
    folder = tmp_path_factory.mktemp("disk")
    (folder / "raw").write_bytes(RAW)
    qemu_img("convert", "-c", "-f", "raw", "-O", "qcow2", folder / "raw", folder / "qcow2")
    return (folder / "qcow2").read_bytes()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FilesServer]:
    """Proxies are set as on many a computer; loopback is not asked through them."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    made = FilesServer()
    yield made
    made.close()


@pytest.fixture
def publish(server: FilesServer, own_home: Path) -> Callable[[bytes], None]:
    """Put an image of these bytes on the server, under /tiny.qcow2, and in the user's catalogue as
    "tiny"."""

    def put(content: bytes) -> None:
        server.files["/tiny.qcow2"] = content
        server.files["/SHA256SUMS"] = f"{sha256(content)} *tiny.qcow2\n".encode()

    folder = own_home / ".config" / "machine"
    folder.mkdir(parents=True)
    (folder / "images.toml").write_text(
        '[tiny]\nos = "debian"\nos_version = "12"\n'
        f'{os.uname().machine} = {{ url = "{server.url}/tiny.qcow2", '
        f'checksums = "{server.url}/SHA256SUMS" }}\n'
    )
    return put


@pytest.fixture
def cache(own_home: Path) -> Path:
    return own_home / ".cache" / "machine" / "images"


def left_over(cache: Path) -> list[str]:
    """What lies in the cache beside images and their locks."""
    return [
        str(path.relative_to(cache))
        for path in sorted(cache.rglob("*"))
        if path.is_file() and path.parent != cache / "tiny" and path.suffix != ".lock"
    ]


# From the catalogue -------------------------------------------------------------------------


def test_pull_show_list_and_remove(
    publish: Callable[[bytes], None], server: FilesServer, disk: bytes, cache: Path
) -> None:
    publish(disk)
    ran = machine("image", "pull", "tiny")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == f"{sha256(disk)}\n"
    assert "Downloading tiny.qcow2" in ran.stderr
    assert "without https" in ran.stderr
    shown = json.loads(machine("image", "show", "tiny").stdout)["data"]
    assert shown["origin"] == f"pulled from {server.url}/tiny.qcow2 (sha256:{sha256(disk)})"
    assert (shown["os"], shown["os_version"], shown["first_boot"]) == ("debian", "12", "cloud-init")
    assert Path(shown["disk"]).read_bytes() == disk
    (row,) = machine("image", "ls").stdout.splitlines()[1:]
    assert row.split()[:3] == ["tiny", "debian", "12"]
    assert row.endswith(f"pulled from {server.url}/tiny.qcow2")
    assert machine("image", "verify", "tiny").returncode == 0
    assert left_over(cache) == []
    assert machine("image", "rm", "tiny").returncode == 0
    assert "tiny" not in machine("image", "ls").stdout
    assert "can be pulled from 127.0.0.1" in machine("image", "ls", "--all").stdout


def test_a_second_pull_downloads_only_what_is_new(
    publish: Callable[[bytes], None], server: FilesServer, disk: bytes, tmp_path: Path
) -> None:
    publish(disk)
    assert machine("image", "pull", "tiny").returncode == 0
    again = machine("image", "pull", "tiny")
    assert (again.returncode, again.stdout) == (0, f"{sha256(disk)}\n")
    assert "tiny is here already" in again.stderr
    assert len(server.asked["/tiny.qcow2"]) == 1
    qemu_img("create", "-f", "qcow2", tmp_path / "new", "5G")
    publish((tmp_path / "new").read_bytes())
    newer = machine("image", "pull", "tiny")
    assert newer.returncode == 0
    assert f"replaces the image tiny that was pulled from {server.url}" in newer.stderr
    assert ImageCache().find("tiny").disk_gib == 5


def test_events_and_result_as_json(publish: Callable[[bytes], None], disk: bytes) -> None:
    publish(disk)
    lines = machine("image", "pull", "tiny", "--output", "json").stdout.splitlines()
    kinds = [json.loads(line)["kind"] for line in lines]
    assert [kind for kind in kinds if kind != "Progress"] == [
        "Note",
        "StepStarted",
        "StepEnded",
        "image",
    ]
    assert "Progress" in kinds
    assert json.loads(lines[-1])["data"]["digest"] == sha256(disk)


def test_four_at_once_download_once(
    publish: Callable[[bytes], None], server: FilesServer, disk: bytes
) -> None:
    """Whoever asks for the image waits until all four have read the checksums."""
    publish(disk)
    everybody = threading.Barrier(4, timeout=60)
    server.manners["/SHA256SUMS"] = [Manner(before=everybody.wait)] * 4
    programs = [
        subprocess.Popen(
            [sys.executable, "-m", "machine", "image", "pull", "tiny"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    ended = [program.communicate(timeout=120) for program in programs]
    assert [program.returncode for program in programs] == [0] * 4, ended
    assert {out for out, _ in ended} == {f"{sha256(disk)}\n"}
    assert server.asked["/tiny.qcow2"] == [""]
    assert sum("tiny is here already" in err for _, err in ended) == 3


@pytest.mark.parametrize(
    ("how", "code", "words"),
    [(signal.SIGKILL, -9, ""), (signal.SIGINT, 130, "the same command goes on with it")],
)
def test_killed_in_the_middle_it_is_gone_on_with(
    publish: Callable[[bytes], None],
    server: FilesServer,
    disk: bytes,
    cache: Path,
    how: signal.Signals,
    code: int,
    words: str,
) -> None:
    publish(disk)
    half, killed = threading.Event(), threading.Event()

    def stop() -> None:
        half.set()
        killed.wait(60)

    server.manners["/tiny.qcow2"] = [Manner(stop_after=1 << 20, at_stop=stop)]
    listens = ("env", "--default-signal=INT")  # a shell's background job would ignore it
    program = subprocess.Popen(
        [*listens, sys.executable, "-m", "machine", "image", "pull", "tiny"],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert half.wait(60)
    arrived = _wait_for_part(cache)
    program.send_signal(how)
    _, said = program.communicate(timeout=60)
    killed.set()
    assert program.returncode == code
    assert words in said
    listed = machine("image", "ls", "-a")
    assert listed.stdout.count("tiny") == 1  # as one that can be pulled
    assert "A download that broke off is kept: tiny" in listed.stderr
    assert 'no image "tiny"' in machine("image", "show", "tiny").stderr
    assert machine("image", "pull", "tiny").returncode == 0
    start = int(server.asked["/tiny.qcow2"][1].removeprefix("bytes=").removesuffix("-"))
    assert arrived <= start <= 1 << 20
    assert ImageCache().find("tiny").disk.read_bytes() == disk
    assert left_over(cache) == []


def test_a_download_that_broke_off_can_be_dropped(
    publish: Callable[[bytes], None], server: FilesServer, disk: bytes, cache: Path
) -> None:
    publish(disk)
    server.always["/tiny.qcow2"] = Manner(stop_after=1 << 20, ranges=False)
    ran = machine("image", "pull", "tiny")
    assert ran.returncode == 1
    assert "The download of tiny.qcow2 broke off" in ran.stderr
    (part,) = left_over(cache)
    assert ImageCache().unfinished() == {"tiny": (cache / part).stat().st_size}
    assert machine("image", "rm", "tiny").returncode == 0
    assert left_over(cache) == []
    assert machine("image", "rm", "tiny").returncode == 1


def _wait_for_part(cache: Path) -> int:
    """Bytes on disk of a download that is under way, once there are any."""
    from machine import wait

    def size() -> int:
        return sum(path.stat().st_size for path in cache.glob(".downloads/*/*"))

    return wait.until("the first bytes", size, timeout=60)


def test_what_was_half_made_is_not_seen_and_is_cleared_away(
    publish: Callable[[bytes], None], disk: bytes, cache: Path
) -> None:
    publish(disk)
    assert machine("image", "pull", "tiny").returncode == 0
    shutil.copytree(cache / "tiny", cache / ".tiny~killed" / "new")
    shutil.copytree(cache / "tiny", cache / ".tiny~other")
    assert ImageCache().names() == ("tiny",)
    assert machine("image", "rm", "tiny").returncode == 0
    assert not list(cache.glob(".tiny~*"))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda disk: disk[: len(disk) // 2], "broken: it is cut short"),
        (lambda disk: disk[:-100_000], "broken"),
        (lambda disk: b"<html>Moved</html>" * 100, "no disk image that could boot"),
        (lambda disk: b"", "no disk image that could boot"),
    ],
    ids=["half", "most", "text", "empty"],
)
def test_a_published_file_that_is_no_disk(
    publish: Callable[[bytes], None],
    disk: bytes,
    cache: Path,
    make: Callable[[bytes], bytes],
    words: str,
) -> None:
    publish(make(disk))
    ran = machine("image", "pull", "tiny", "--output", "json")
    error = json.loads(ran.stdout.splitlines()[-1])["data"]
    assert (ran.returncode, error["kind"]) == (1, "ImageError")
    assert words in error["brief"]
    assert ImageCache().names() == ()
    assert left_over(cache) == []


def test_a_wrong_digest_keeps_the_image_that_is_here(
    publish: Callable[[bytes], None], server: FilesServer, disk: bytes, cache: Path
) -> None:
    publish(disk)
    assert machine("image", "pull", "tiny").returncode == 0
    server.files["/SHA256SUMS"] = f"{'0' * 64}  tiny.qcow2\n".encode()
    ran = machine("image", "pull", "tiny", "--output", "json")
    error = json.loads(ran.stdout.splitlines()[-1])["data"]
    assert (ran.returncode, error["kind"]) == (1, "DigestMismatch")
    assert ImageCache().find("tiny").digest == sha256(disk)
    assert left_over(cache) == []


def test_a_weak_digest_is_refused(
    publish: Callable[[bytes], None], server: FilesServer, disk: bytes
) -> None:
    publish(disk)
    server.files["/SHA256SUMS"] = f"{hashlib.md5(disk).hexdigest()}  tiny.qcow2\n".encode()
    ran = machine("image", "pull", "tiny")
    assert ran.returncode == 1
    assert "only a weak digest of tiny.qcow2" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert server.asked["/tiny.qcow2"] == []


def test_a_location_of_ones_own(server: FilesServer, disk: bytes) -> None:
    server.files["/there/it.img"] = disk
    where = ("--url", f"{server.url}/there/it.img")
    system = ("--os", "alpine", "--os-version", "3.20")
    ran = machine("image", "pull", "own", *where, *system, "--digest", f"sha256:{sha256(disk)}")
    assert (ran.returncode, ran.stdout) == (0, f"{sha256(disk)}\n"), ran.stderr
    assert ImageCache().find("own").os == "alpine"
    server.files["/sums"] = hashlib.sha512(disk).hexdigest().encode()
    ran = machine("image", "pull", "own2", *where, *system, "--checksums", f"{server.url}/sums")
    assert ran.returncode == 0, ran.stderr


OWN = ("--url", "http://127.0.0.1/a", "--digest", f"sha256:{'0' * 64}")


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (("nosuch",), 1, 'There is no image "nosuch"'),
        (("own", "--url", "http://127.0.0.1/a.img"), 2, "needs --digest or --checksums"),
        (("own", "--url", "/a.img"), 2, "must be http or https URLs"),
        (("own", "--url", "https://me:secret@h/a"), 2, "~/.netrc"),
        (("own", "--url", "http://[h/a"), 2, "must be http or https URLs"),
        (("own", "--url", "http://h/a", "--digest", "md5:" + "0" * 32), 2, "--digest is 'md5:"),
        (("own", *OWN), 2, "--os and --os-version"),
        (("debian-12", "--os", "debian"), 2, "belong to --url"),
        (("A/../b", *OWN, "--os", "x", "--os-version", "1"), 1, "is no name for an image"),
    ],
)
def test_what_is_wrong_is_told(words: tuple[str, ...], code: int, line: str) -> None:
    ran = machine("image", "pull", *words)
    assert line in ran.stderr
    assert "Traceback" not in ran.stderr
    assert (ran.returncode, ran.stdout) == (code, "")


def test_a_broken_catalogue_of_the_user_is_named(own_home: Path) -> None:
    path = own_home / ".config" / "machine" / "images.toml"
    path.parent.mkdir(parents=True)
    path.write_text('[tiny]\nos = "debian"\nos_version = 12\n')
    ran = machine("image", "pull", "tiny")
    assert ran.returncode == 2
    assert f"{path}:3: tiny.os_version: is 12, and must be text" in ran.stderr
    with pytest.raises(CatalogueError):
        ImageCache().ensure("tiny", Reporter())


# What a create gets -------------------------------------------------------------------------


def test_a_create_pulls_the_image_that_is_missing(
    publish: Callable[[bytes], None], disk: bytes, folder_driver: str, tmp_path: Path
) -> None:
    publish(disk)
    (tmp_path / "it.toml").write_text('image = "tiny"\n')
    ran = machine("create", "-d", folder_driver, "-t", str(tmp_path / "it.toml"), "a")
    assert "Downloading tiny.qcow2" in ran.stderr
    assert "cannot boot the image tiny (first boot: cloud-init)" in ran.stderr
    assert ran.returncode == 2
    assert ImageCache().names() == ("tiny",)


def test_the_users_own_location_goes_before_a_build(
    publish: Callable[[bytes], None], disk: bytes, own_home: Path
) -> None:
    publish(disk)
    path = own_home / ".config" / "machine" / "images.toml"
    path.write_text(path.read_text().replace("[tiny]", "[debian-13]"))
    assert ImageCache().ensure("debian-13", Reporter()).origin.startswith("pulled from")


def test_what_cannot_be_built_here_is_pulled(
    publish: Callable[[bytes], None],
    disk: bytes,
    own_home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a computer with qemu-img and without mmdebstrap, from the shipped catalogue."""
    publish(disk)
    own = own_home / ".config" / "machine" / "images.toml"
    shipped = tmp_path / "catalogue.toml"
    shipped.write_text(own.read_text().replace("[tiny]", "[debian-13]"))
    own.unlink()
    monkeypatch.setattr(catalogue, "shipped_images", lambda: shipped)
    qemu_img_here = shutil.which("qemu-img")
    assert qemu_img_here
    (tmp_path / "qemu-img").symlink_to(qemu_img_here)
    monkeypatch.setenv("PATH", str(tmp_path))
    events: list[Event] = []
    image = ImageCache().ensure("debian-13", Reporter(events.append))
    assert image.origin.startswith("pulled from")
    (note, *_) = [each.text for each in events if isinstance(each, Note)]
    assert note.startswith("debian-13 is pulled: Building an image needs programs")
    assert "mmdebstrap" in note


def test_an_image_that_needs_a_larger_disk(folder_driver: str, tmp_path: Path, cache: Path) -> None:
    """The image is one that the driver boots, as its manifest says, and has 30 GiB."""
    qemu_img("create", "-f", "qcow2", tmp_path / "big.qcow2", "30G")
    imported = ("image", "import", str(tmp_path / "big.qcow2"), "--name", "tiny")
    assert machine(*imported, "--os", "debian", "--os-version", "12").returncode == 0
    manifest = cache / "tiny" / "image.json"
    manifest.write_text(manifest.read_text().replace("cloud-init", "identity"))
    (tmp_path / "it.toml").write_text('image = "tiny"\ndisk_gib = 29\n')
    ran = machine("create", "-d", folder_driver, "-t", str(tmp_path / "it.toml"), "a")
    assert ran.returncode == 2
    assert "The image tiny is larger than the disk of 29 GiB" in ran.stderr
    assert "30 GiB or more" in ran.stderr


# From a file --------------------------------------------------------------------------------


def imports(path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    system = ("--os", "debian", "--os-version", "12")
    return machine("image", "import", str(path), "--name", "tiny", *system, *words)


def test_import_of_a_qcow2_keeps_its_bytes(disk: bytes, tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "a:b.qcow2"  # qemu-img takes what stands before a colon for a protocol
    path.write_bytes(disk)
    ran = imports(path, "--digest", f"sha512:{hashlib.sha512(disk).hexdigest()}")
    assert (ran.returncode, ran.stdout) == (0, f"{sha256(disk)}\n"), ran.stderr
    assert ImageCache().find("tiny").origin == "imported from a:b.qcow2"
    assert path.read_bytes() == disk
    assert left_over(cache) == []


def test_import_of_a_raw_disk_makes_it_a_qcow2(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "it.img").write_bytes(RAW)
    assert imports(tmp_path / "it.img").returncode == 0
    qemu_img(
        "convert", "-f", "qcow2", "-O", "raw", cache / "tiny" / "disk.qcow2", tmp_path / "back"
    )
    assert (tmp_path / "back").read_bytes() == RAW
    assert sorted(each.name for each in (cache / "tiny").iterdir()) == ["disk.qcow2", "image.json"]


def test_an_imported_image_is_not_replaced_unasked(disk: bytes, tmp_path: Path) -> None:
    (tmp_path / "one.qcow2").write_bytes(disk)
    (tmp_path / "two.img").write_bytes(RAW)
    assert imports(tmp_path / "one.qcow2").returncode == 0
    refused = imports(tmp_path / "two.img")
    assert refused.returncode == 1
    assert 'There is an image "tiny" already' in refused.stderr
    assert "--force" in refused.stderr
    assert ImageCache().find("tiny").digest == sha256(disk)
    replaced = imports(tmp_path / "two.img", "--force")
    assert replaced.returncode == 0
    assert "replaces the image tiny that was imported from one.qcow2" in replaced.stderr


def test_the_system_of_a_known_name_need_not_be_said(disk: bytes, tmp_path: Path) -> None:
    (tmp_path / "it.qcow2").write_bytes(disk)
    words = ("image", "import", str(tmp_path / "it.qcow2"), "--name")
    assert machine(*words, "rocky-9").returncode == 0
    assert ImageCache().find("rocky-9").os == "rocky"
    unknown = machine(*words, "mine")
    assert unknown.returncode == 2
    assert "VERSION_ID of the image's /etc/os-release" in unknown.stderr


def test_a_file_with_another_digest_is_not_imported(
    disk: bytes, tmp_path: Path, cache: Path
) -> None:
    (tmp_path / "it.qcow2").write_bytes(disk)
    ran = imports(tmp_path / "it.qcow2", "--digest", f"sha256:{'0' * 64}")
    assert ran.returncode == 1
    assert "does not have that digest" in ran.stderr
    assert ImageCache().names() == ()
    assert left_over(cache) == []


@pytest.mark.parametrize(
    "options",
    [
        ("-b", "{base}", "-F", "raw"),
        ("-o", "data_file={other}"),
    ],
    ids=["backing", "data-file"],
)
def test_a_qcow2_that_is_not_a_whole_disk(tmp_path: Path, options: tuple[str, ...]) -> None:
    (tmp_path / "base").write_bytes(RAW)
    names = {"base": tmp_path / "base", "other": tmp_path / "other"}
    filled = [each.format(**names) for each in options]
    qemu_img("create", "-f", "qcow2", *filled, tmp_path / "it.qcow2", "1G")
    ran = imports(tmp_path / "it.qcow2")
    assert ran.returncode == 1
    assert "is not a whole disk: it rests on a further file" in ran.stderr


@pytest.mark.parametrize("cut", [66_000, 500_000, 1_500_000])
def test_a_copy_that_is_cut_short(disk: bytes, tmp_path: Path, cut: int) -> None:
    (tmp_path / "it.qcow2").write_bytes(disk[:-cut])
    ran = imports(tmp_path / "it.qcow2")
    assert ran.returncode == 1
    assert "it.qcow2 is broken" in ran.stderr
    assert ImageCache().names() == ()


def test_without_qemu_img_the_remedy_is_told(disk: bytes, tmp_path: Path) -> None:
    (tmp_path / "it.qcow2").write_bytes(disk)
    words = ("image", "import", str(tmp_path / "it.qcow2"), "--name", "rocky-9")
    ran = machine(*words, PATH=str(tmp_path))
    assert ran.returncode == 3
    assert "qemu-utils" in ran.stderr


# Damage -------------------------------------------------------------------------------------


@pytest.fixture
def damaged(disk: bytes, tmp_path: Path, cache: Path) -> Path:
    """The disk of an image of the cache, for a test to damage."""
    (tmp_path / "it.qcow2").write_bytes(disk)
    assert imports(tmp_path / "it.qcow2").returncode == 0
    return cache / "tiny" / "disk.qcow2"


def test_a_byte_that_was_flipped_is_found_by_verify(damaged: Path) -> None:
    before = damaged.stat()
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    os.utime(damaged, ns=(before.st_atime_ns, before.st_mtime_ns))
    ran = machine("image", "verify", "tiny")
    assert ran.returncode == 1
    assert "disk.qcow2 of the image tiny is damaged" in ran.stderr
    assert "machine image rm tiny" in ran.stderr


def test_a_size_that_changed_is_found_at_every_use(damaged: Path) -> None:
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.raises(ImageError, match=r"disk.qcow2 of the image tiny was changed"):
        ImageCache().find("tiny")
    listed = machine("image", "ls")
    assert "Warning: disk.qcow2 of the image tiny was changed" in listed.stderr
    assert "tiny" not in listed.stdout
    assert machine("image", "verify", "tiny").returncode == 1
    assert machine("image", "rm", "tiny").returncode == 0
    assert ImageCache().names() == ()


def test_a_copied_cache_is_mended_by_verify(damaged: Path) -> None:
    os.utime(damaged)
    assert machine("image", "show", "tiny").returncode == 1
    assert machine("image", "verify", "tiny").returncode == 0
    assert machine("image", "show", "tiny").returncode == 0


@pytest.mark.parametrize(
    "manifest", ["", "{", "[]", '{"files": {}}', '{"files": {"disk.qcow2": {}}}']
)
def test_a_damaged_manifest_is_named_and_can_be_removed(damaged: Path, manifest: str) -> None:
    (damaged.parent / "image.json").write_text(manifest)
    for verb in ("show", "verify"):
        ran = machine("image", verb, "tiny")
        assert ran.returncode == 1
        assert "The image tiny is damaged" in ran.stderr
        assert "Traceback" not in ran.stderr
    assert machine("image", "rm", "tiny").returncode == 0


def test_a_disk_that_is_gone(damaged: Path) -> None:
    damaged.unlink()
    for verb in ("show", "verify"):
        assert "The image tiny is damaged" in machine("image", verb, "tiny").stderr


def test_a_name_leads_nowhere_else(damaged: Path) -> None:
    for name in ("../images/tiny", "tiny/", ".", "..", ""):
        assert machine("image", "rm", name).returncode == 1
    assert ImageCache().names() == ("tiny",)


def test_removal_names_the_machines_that_were_made_from_it(
    damaged: Path, folder_driver: str
) -> None:
    from machine import record
    from machine.model import EngineOptions
    from machine.store import Store

    digest = ImageCache().find("tiny").digest
    for name, image in (("web", digest), ("db", "0" * 64)):
        block = record.block(image_digest=image)
        Store().reserve(record.new(name, folder_driver, block, EngineOptions()))
    ran = machine("image", "rm", "tiny")
    assert "Made from it, and not touched: web" in ran.stderr
    assert "db" not in ran.stderr


# A full disk --------------------------------------------------------------------------------


def on_a_small_disk(folder: Path, size: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the program in a mount namespace of its own, with a cache of that size; print what is in
    the cache afterwards."""
    folder.mkdir()
    script = (
        f'mount -t tmpfs -o size={size} tmpfs "$0" && {{ "$@"; code=$?; }}; '
        'find "$0" -type f -not -name "*.lock" >&2; exit $code'
    )
    rights = () if os.geteuid() == 0 else ("--map-root-user",)
    program = (sys.executable, "-m", "machine", *words, "--output", "json")
    return subprocess.run(
        ["unshare", "--mount", *rights, "sh", "-c", script, str(folder), *program],
        capture_output=True,
        text=True,
        env={**os.environ, "MACHINE_CACHE_PATH": str(folder)},
        check=False,
        timeout=120,
    )


def test_a_full_disk_is_told_before_a_download(
    publish: Callable[[bytes], None], disk: bytes, tmp_path: Path
) -> None:
    publish(disk)
    ran = on_a_small_disk(tmp_path / "small", "1m", "image", "pull", "tiny")
    error = json.loads(ran.stdout.splitlines()[-1])["data"]
    assert (ran.returncode, error["kind"]) == (1, "DiskFull"), ran.stderr
    assert "2 MiB more are needed" in error["details"]
    assert f"df -h {tmp_path / 'small'}" in error["hint"]
    assert ran.stderr == ""


@pytest.mark.parametrize("size", ["1m", "3m"], ids=["copying", "converting"])
def test_a_disk_that_gets_full_in_an_import(tmp_path: Path, size: str) -> None:
    (tmp_path / "it.img").write_bytes(RAW)
    words = ("image", "import", str(tmp_path / "it.img"), "--name", "tiny")
    system = ("--os", "debian", "--os-version", "12")
    ran = on_a_small_disk(tmp_path / "small", size, *words, *system)
    error = json.loads(ran.stdout.splitlines()[-1])["data"]
    assert (ran.returncode, error["kind"]) == (1, "DiskFull"), ran.stderr
    assert ran.stderr == ""


def test_a_cache_that_cannot_be_written(disk: bytes, tmp_path: Path) -> None:
    (tmp_path / "it.qcow2").write_bytes(disk)
    (tmp_path / "file").write_text("")
    words = ("image", "import", str(tmp_path / "it.qcow2"), "--name", "tiny")
    ran = machine(*words, "--os", "x", "--os-version", "1", MACHINE_CACHE_PATH=f"{tmp_path}/file")
    assert ran.returncode == 1
    assert "The cache cannot be written" in ran.stderr
    assert "MACHINE_CACHE_PATH" in ran.stderr
