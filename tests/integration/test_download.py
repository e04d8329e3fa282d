"""Downloads from a server that breaks off, lies, changes its mind, or is not there."""

from __future__ import annotations

import hashlib
import random
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from machine import download
from machine.download import Digest
from machine.errors import DigestMismatch, DiskFull, DownloadFailed
from machine.tls import Authority
from tests.integration.files_server import FilesServer, Manner

CONTENT = random.Random(7).randbytes(3 * 1024 * 1024 + 17)
HALF = 1_500_000
OTHER = random.Random(8).randbytes(len(CONTENT))


def digest_of(content: bytes) -> Digest:
    return Digest("sha256", hashlib.sha256(content).hexdigest())


DIGEST = digest_of(CONTENT)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FilesServer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "PAUSES", (0, 0, 0))  # a setting: how patient it is
    made = FilesServer()
    made.files["/f"] = CONTENT
    yield made
    made.close()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "part"


def test_a_whole_file_in_one_answer(server: FilesServer, target: Path) -> None:
    told: list[tuple[int, int | None]] = []
    download.fetch(
        f"{server.url}/f", target, DIGEST, lambda done, total: told.append((done, total))
    )
    assert target.read_bytes() == CONTENT
    assert server.asked["/f"] == [""]
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert [done >> 20 for done, _ in told] == [1, 2, 3, 3]


def test_what_broke_off_is_gone_on_with(server: FilesServer, target: Path) -> None:
    server.manners["/f"] = [Manner(stop_after=HALF), Manner(stop_after=HALF // 2)]
    download.fetch(f"{server.url}/f", target, DIGEST)
    assert target.read_bytes() == CONTENT
    first, *ranges = server.asked["/f"]
    starts = [int(each.removeprefix("bytes=").removesuffix("-")) for each in ranges]
    assert first == ""
    assert HALF - download.CHUNK < starts[0] <= HALF
    assert starts[0] < starts[1] < len(CONTENT)


def test_a_later_call_goes_on_with_what_an_earlier_one_left(
    server: FilesServer, target: Path
) -> None:
    server.manners["/f"] = [Manner(stop_after=HALF), *[Manner(stop_after=0)] * 4]
    with pytest.raises(DownloadFailed, match="broke off") as caught:
        download.fetch(f"{server.url}/f", target, DIGEST)
    assert "goes on" in caught.value.hint
    left = target.stat().st_size
    assert 0 < left <= HALF
    download.fetch(f"{server.url}/f", target, DIGEST)
    assert target.read_bytes() == CONTENT
    assert server.asked["/f"][-1] == f"bytes={left}-"


def test_a_server_without_ranges_sends_it_all_again(server: FilesServer, target: Path) -> None:
    server.manners["/f"] = [Manner(stop_after=HALF), Manner(ranges=False)]
    download.fetch(f"{server.url}/f", target, DIGEST)
    assert target.read_bytes() == CONTENT


def test_a_range_that_was_not_asked_for_is_not_taken(server: FilesServer, target: Path) -> None:
    server.manners["/f"] = [Manner(stop_after=HALF), Manner(shifted=5)]
    download.fetch(f"{server.url}/f", target, DIGEST)
    assert target.read_bytes() == CONTENT
    assert server.asked["/f"][-1] == ""


def test_a_length_that_is_too_long(server: FilesServer, target: Path) -> None:
    """All is there, though the connection seems to break: the next answer says so."""
    server.manners["/f"] = [Manner(claim=100)]
    target.write_bytes(CONTENT[:HALF])
    download.fetch(f"{server.url}/f", target, DIGEST)
    assert target.read_bytes() == CONTENT
    assert len(server.asked["/f"]) == 2


def test_a_length_that_is_always_too_long(server: FilesServer, target: Path) -> None:
    server.always["/f"] = Manner(claim=100, ranges=False)
    with pytest.raises(DownloadFailed, match="broke off"):
        download.fetch(f"{server.url}/f", target, DIGEST)
    assert len(server.asked["/f"]) == 2 + len(download.PAUSES)


def test_a_length_that_is_too_short(server: FilesServer, target: Path) -> None:
    server.always["/f"] = Manner(claim=-100)
    with pytest.raises(DigestMismatch):
        download.fetch(f"{server.url}/f", target, DIGEST)
    assert not target.exists()


def test_a_wrong_digest_is_thrown_away_and_not_asked_for_twice(
    server: FilesServer, target: Path
) -> None:
    with pytest.raises(DigestMismatch, match="not what its checksum says") as caught:
        download.fetch(f"{server.url}/f", target, digest_of(OTHER))
    assert str(DIGEST) in caught.value.details
    assert str(digest_of(OTHER)) in caught.value.details
    assert not target.exists()
    assert server.asked["/f"] == [""]


@pytest.mark.parametrize("left", [OTHER[:HALF], OTHER, OTHER + b"longer"])
def test_pieces_of_two_files_are_not_put_together(
    server: FilesServer, target: Path, left: bytes
) -> None:
    """The file was replaced at the server since the last try."""
    target.write_bytes(left)
    download.fetch(f"{server.url}/f", target, DIGEST)
    assert target.read_bytes() == CONTENT
    assert server.asked["/f"][-1] == ""


def test_a_file_that_is_replaced_between_two_answers(server: FilesServer, target: Path) -> None:
    server.files["/f"] = OTHER
    swap = Manner(stop_after=HALF, at_stop=lambda: server.files.update({"/f": CONTENT}))
    server.manners["/f"] = [swap]
    download.fetch(f"{server.url}/f", target, DIGEST)
    assert target.read_bytes() == CONTENT
    assert len(server.asked["/f"]) == 3


def test_a_server_that_always_breaks_off_and_has_something_else(
    server: FilesServer, target: Path
) -> None:
    """It ends: what was pieced together is fetched anew once, not for ever."""
    server.always["/f"] = Manner(stop_after=len(CONTENT) // 2)
    with pytest.raises(DigestMismatch):
        download.fetch(f"{server.url}/f", target, digest_of(OTHER))


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_refusal_is_told_at_once(server: FilesServer, target: Path, status: int) -> None:
    server.always["/f"] = Manner(status=status)
    with pytest.raises(DownloadFailed, match=str(status)) as caught:
        download.fetch(f"{server.url}/f", target, DIGEST)
    assert f"{server.url}/f" in caught.value.details
    assert server.asked["/f"] == [""]
    with pytest.raises(DownloadFailed, match=str(status)):
        download.text(f"{server.url}/f")


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_servers_trouble_is_waited_for(server: FilesServer, target: Path, status: int) -> None:
    server.manners["/f"] = [Manner(status=status)] * 2
    download.fetch(f"{server.url}/f", target, DIGEST)
    assert target.read_bytes() == CONTENT
    server.always["/f"] = Manner(status=status)
    with pytest.raises(DownloadFailed) as caught:
        download.fetch(f"{server.url}/f", target.with_name("other"), DIGEST)
    assert str(status) in caught.value.details
    with pytest.raises(DownloadFailed) as caught:
        download.text(f"{server.url}/f")
    assert str(status) in caught.value.details


def test_a_server_that_is_not_there(server: FilesServer, target: Path) -> None:
    gone = FilesServer()
    gone.close()
    for call in (
        lambda: download.fetch(f"{gone.url}/f", target, DIGEST),
        lambda: download.text(f"{gone.url}/f"),
    ):
        with pytest.raises(DownloadFailed, match="There is no answer from") as caught:
            call()
        assert "refused" in caught.value.details
        assert "https_proxy" in caught.value.hint


def test_a_redirect_is_followed_with_its_range(server: FilesServer, target: Path) -> None:
    server.files["/there"] = CONTENT
    server.always["/f"] = Manner(status=302, location=f"{server.url}/there")
    target.write_bytes(CONTENT[:HALF])
    download.fetch(f"{server.url}/f", target, DIGEST)
    assert server.asked["/there"] == [f"bytes={HALF}-"]
    server.always["/f"] = Manner(status=302, location="file:///etc/passwd")
    with pytest.raises(DownloadFailed):
        download.text(f"{server.url}/f")


@pytest.mark.parametrize("secure", [True, False])
def test_checksums_asked_for_over_https_come_over_https(
    server: FilesServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secure: bool
) -> None:
    authority = Authority(tmp_path / "ca", tmp_path / "lock")
    authority.ensure()
    cert, key = authority.issue_server(["127.0.0.1"])
    (tmp_path / "server.pem").write_bytes(cert + key)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca" / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    safe = FilesServer(context)
    try:
        where = safe if secure else server
        where.files["/SUMS"] = b"sums"
        safe.always["/f"] = Manner(status=302, location=f"{where.url}/SUMS")
        if secure:
            assert download.text(f"{safe.url}/f") == "sums"
        else:
            with pytest.raises(DownloadFailed, match="without https"):
                download.text(f"{safe.url}/f")
    finally:
        safe.close()


def test_a_checksum_file_that_breaks_off_is_not_half_believed(server: FilesServer) -> None:
    server.files["/SUMS"] = b"0123456789" * 20
    server.always["/SUMS"] = Manner(stop_after=100)
    with pytest.raises(DownloadFailed, match="could not be read"):
        download.text(f"{server.url}/SUMS")


def test_no_more_of_a_text_is_read_than_one_could_be_long(server: FilesServer) -> None:
    server.files["/SUMS"] = b"x" * (3 * download.LONGEST_TEXT)
    assert len(download.text(f"{server.url}/SUMS")) <= download.LONGEST_TEXT + download.CHUNK


def test_a_disk_that_is_full(server: FilesServer, target: Path) -> None:
    target.symlink_to("/dev/full")  # null(4): every write to it fails with ENOSPC
    with pytest.raises(DiskFull, match=str(target.parent)) as caught:
        download.fetch(f"{server.url}/f", target, DIGEST)
    assert "MACHINE_CACHE_PATH" in caught.value.hint


def test_a_folder_that_is_not_there(server: FilesServer, tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed, match="cannot be written"):
        download.fetch(f"{server.url}/f", tmp_path / "no" / "part", DIGEST)
