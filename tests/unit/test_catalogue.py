from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from machine import catalogue, template
from machine.catalogue import Source
from machine.download import Digest, digest_in, file_name, is_url
from machine.errors import CatalogueError, DownloadFailed
from machine.images import BUILT
from machine.paths import shipped_images

SHIPPED = list(catalogue.read(shipped_images()))
HEX = {"md5": "a" * 32, "sha1": "b" * 40, "sha256": "C" * 64, "sha512": "d" * 128}


def test_the_systems_that_are_promised_are_there() -> None:
    for arch in ("x86_64", "aarch64"):
        names = {each.name for each in SHIPPED if each.arch == arch}
        assert {"debian-12", "debian-13", "ubuntu-24.04", "rocky-9", "alma-9"} <= names
        assert {name for name in names if name.startswith("opensuse-leap-")}
        assert {name for name in names if name.startswith("alpine-")}


@pytest.mark.parametrize("source", SHIPPED, ids=lambda each: f"{each.name}-{each.arch}")
def test_a_shipped_entry_is_complete(source: Source) -> None:
    assert re.fullmatch(r"[a-z0-9.-]+", source.name)
    assert re.fullmatch(r"[a-z-]+", source.os)
    assert re.fullmatch(r"[0-9.]+", source.os_version)
    for url in (source.url, source.checksums):
        assert urlsplit(url).scheme == "https"
    assert urlsplit(source.url).hostname == urlsplit(source.checksums).hostname
    assert source.url.endswith((".qcow2", ".img"))
    words = {"x86_64": ("amd64", "x86_64"), "aarch64": ("arm64", "aarch64")}[source.arch]
    assert any(word in file_name(source.url) for word in words)
    # On x86_64 the disk boots by BIOS; Alpine's have the firmware in their name.
    assert not (source.arch == "x86_64" and "uefi" in source.url)
    assert not source.own


def test_every_shipped_templates_image_can_be_got() -> None:
    known = {each.name for each in SHIPPED} | set(BUILT)
    for name in template.names():
        assert template.find(name).image in known


def test_a_system_without_packages_of_ours_gets_the_static_bundle() -> None:
    systems = {each.name: each.os for each in SHIPPED}
    for name in template.names():
        found = template.find(name)
        assert found.bundle == ("packages" if systems[found.image] == "debian" else "static")


ENTRY = """\
[mine]
os = "debian"
os_version = "12"
[mine.x86_64]
url = "http://127.0.0.1/a.qcow2"
checksums = "http://127.0.0.1/SUMS"
"""


def test_the_users_own_come_first(own_home: Path) -> None:
    folder = own_home / ".config" / "machine"
    folder.mkdir(parents=True)
    text = ENTRY + ENTRY.replace("mine", "rocky-9")
    (folder / "images.toml").write_text(text)
    found = catalogue.sources("x86_64")
    assert (found["mine"].own, found["mine"].url) == (True, "http://127.0.0.1/a.qcow2")
    assert (found["rocky-9"].own, found["rocky-9"].os) == (True, "debian")
    assert not found["alma-9"].own
    assert "mine" not in catalogue.sources("aarch64")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('os = "debian"\n', "", ":1: mine: has no `os`"),
        ('os = "debian"', "os = 5", ":2: mine.os: is 5, and must be text"),
        ("os_version", "os_verson", ":1: mine: has no `os_version`"),
        (
            '"12"',
            '"12"\nos_versin = "5"',
            ":4: mine.os_versin: unknown key; did you mean os_version?",
        ),
        ("url =", "ulr =", ":5: mine.x86_64.ulr: unknown key; did you mean url?"),
        (
            "checksums =",
            "digest =",
            ":6: mine.x86_64.digest: is 'http://127.0.0.1/SUMS', and must be",
        ),
        ("checksums = ", "# ", ":4: mine.x86_64: needs `url`, and either"),
        (
            "[mine.x86_64]",
            "[mine.x86_64]\ndigest = 'x'",
            ":4: mine.x86_64: needs `url`, and either",
        ),
        ("http://127.0.0.1/a", "ftp://127.0.0.1/a", ":5: mine.x86_64.url: is 'ftp:"),
        ("http://127.0.0.1/SUMS", "/etc/SUMS", ":6: mine.x86_64.checksums: is '/etc/SUMS'"),
        ("[mine]\n", "other = 5\n[mine]\n", ":1: other: must be a table"),
        ("[mine]\n", "[mine\n", ":1: "),
    ],
)
def test_a_mistake_is_named_with_line_and_key(
    tmp_path: Path, old: str, new: str, words: str
) -> None:
    path = tmp_path / "images.toml"
    path.write_text(ENTRY.replace(old, new, 1))
    with pytest.raises(CatalogueError) as caught:
        list(catalogue.read(path))
    assert f"{path}{words}" in caught.value.brief
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("listing", "algorithm"),
    [
        (f"{HEX['sha256']}  a.img\n{HEX['sha512']}  b.img\n", "sha256"),  # GNU coreutils
        (f"{HEX['sha256']} *a.img\r\n{HEX['sha512']} *b.img\r\n", "sha256"),  # binary mode
        (f"{HEX['sha512']}  ./a.img\n{HEX['sha256']}  ./b.img\n", "sha512"),
        (f"# a.img: 5 bytes\nSHA256 (a.img) = {HEX['sha256']}\n", "sha256"),  # BSD
        (
            f"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nMD5 (a.img) = {HEX['md5']}\n"
            f"SHA512 (a.img) = {HEX['sha512']}\nSHA256 (a.img) = {HEX['sha256']}\n"
            f"SHA256 (b.img) = {'e' * 64}\n-----BEGIN PGP SIGNATURE-----\n",
            "sha512",  # the strongest
        ),
        (HEX["sha512"], "sha512"),  # a digest alone
        (f"{HEX['sha256']}  a-2026.1-Build5.img\n", "sha256"),  # the only one, by its dated name
    ],
)
def test_a_digest_is_found_in_a_checksum_file(listing: str, algorithm: str) -> None:
    found = digest_in(listing, "a.img", source="SUMS")
    assert str(found) == f"{algorithm}:{HEX[algorithm].lower()}"


@pytest.mark.parametrize(
    ("listing", "words"),
    [
        (f"{HEX['md5']}  a.img\n", "only a weak digest of a.img"),
        (f"SHA1 (a.img) = {HEX['sha1']}\nSHA256 (b.img) = {HEX['sha256']}\n", "only a weak digest"),
        (HEX["sha1"], "only a weak digest"),
        (f"{HEX['sha256']}  b.img\n{HEX['sha256']}  c.img\n", "no digest of a.img"),
        (f"{HEX['sha256']}  aa.img\n{HEX['sha256']}  a.img.sig\n", "no digest of a.img"),
        (f"{'a' * 63}  a.img\n", "weak"),
        ("<html>404</html>", "no digest of a.img"),
        ("", "no digest of a.img"),
    ],
)
def test_without_a_good_digest_nothing_is_believed(listing: str, words: str) -> None:
    with pytest.raises(DownloadFailed, match=words):
        digest_in(listing, "a.img", source="SUMS")


@pytest.mark.parametrize(
    "text",
    [
        "",
        HEX["sha256"],
        f"md5:{HEX['md5']}",
        f"sha1:{HEX['sha1']}",
        "sha256:12",
        f"sha256:{'g' * 64}",
    ],
)
def test_a_digest_names_a_strong_algorithm(text: str) -> None:
    with pytest.raises(ValueError, match="must be sha256:"):
        Digest.parse(text)
    assert str(Digest.parse(f"SHA256:{HEX['sha256']}")) == f"sha256:{'c' * 64}"


def test_the_name_of_a_download() -> None:
    assert file_name("https://host/a%20b/c%2Bd.img?x=/y#z") == "c+d.img"


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("https://host/a.img", True),
        ("http://127.0.0.1:8000/a", True),
        ("https://host/folder/", False),
        ("https://host", False),
        ("https:///a.img", False),
        ("https://me:secret@host/a.img", False),
        ("http://[host/a.img", False),
        ("file:///a.img", False),
        ("a.img", False),
        ("", False),
    ],
)
def test_what_is_a_location(text: str, good: bool) -> None:
    assert is_url(text) is good
