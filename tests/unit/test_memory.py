"""A file of saved memory, built here as libvirt's src/qemu/qemu_saveimage.h lays it out."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import threading
from pathlib import Path

import pytest

from machine.drivers.libvirt import memory
from machine.errors import WarmRefused

OLD = "<domain><name>base-warm-1</name><uuid>1</uuid></domain>"
NEW = "<domain><name>somebody</name><uuid>2</uuid><description>ü</description></domain>"
COOKIE = b"<cookie><cpu/></cookie>\0"
MIB = 1 << 20


def header(
    data: int, *, magic: bytes = b"LibvirtQemudSave", version: int = 2, cookie_at: int = 0
) -> bytes:
    """magic[16], version, data_len, was_running, compressed, cookieOffset, unused[14]."""
    return struct.pack("=16sIIIII56x", magic, version, data, 1, 0, cookie_at)


def saved(stream: bytes, *, cookie: bytes = b"", padding: int = 0) -> bytes:
    xml = OLD.encode() + b"\0"
    data = xml + cookie + bytes(padding)
    return header(len(data), cookie_at=len(xml) if cookie else 0) + data + stream


def parts(begin: bytes) -> tuple[tuple[int, ...], str, bytes]:
    """What libvirt reads: the numbers, the XML to its null, the cookie."""
    magic, *numbers = struct.unpack_from("=16s5I", begin)
    assert magic == b"LibvirtQemudSave"
    data, at = begin[92:], numbers[4]
    assert len(data) == numbers[1]
    return tuple(numbers), data[: data.index(b"\0")].decode(), data[at:] if at else b""


def test_another_xml_stands_in_the_beginning() -> None:
    file = io.BytesIO(saved(b"stream"))
    numbers, xml, cookie = parts(memory._rewritten(file, NEW))
    assert numbers == (2, len(NEW.encode()) + 1, 1, 0, 0)
    assert (xml, cookie) == (NEW, b"")
    assert file.read() == b"stream"


@pytest.mark.parametrize("padding", [0, 1, 5000])
def test_the_cookie_stays_behind_it(padding: int) -> None:
    """libvirt may leave room after it, for an XML that grows."""
    file = io.BytesIO(saved(b"stream", cookie=COOKIE, padding=padding))
    numbers, xml, cookie = parts(memory._rewritten(file, NEW))
    assert numbers[4] == len(NEW.encode()) + 1
    assert (xml, cookie) == (NEW, COOKIE)
    assert file.read() == b"stream"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "damaged"),
        (saved(b"")[:91], "damaged"),
        (header(0, magic=b"LibvirtQemudPart"), "a form that is not known"),
        (header(0, version=1), "a form that is not known"),
        (header(0, version=3), "a form that is not known"),
    ],
)
def test_what_is_not_understood_is_refused(content: bytes, said: str) -> None:
    with pytest.raises(WarmRefused, match=said):
        memory._rewritten(io.BytesIO(content), NEW)


def fed(tmp_path: Path, content: bytes, sha256: str, most: int = -1) -> tuple[bytes, bool]:
    """What comes out of the pipe, and whether the memory is said to be damaged."""
    source, pipe = tmp_path / "memory", tmp_path / "pipe"
    source.write_bytes(content)
    os.mkfifo(pipe)
    with source.open("rb") as file:
        begin = memory._rewritten(file, NEW)
        feeder = memory._Feeder(begin, file, sha256, pipe)
        feeder.start()
        with pipe.open("rb") as out:
            got = out.read(most)
        feeder.stop()
    assert got.startswith(begin[:most] if most >= 0 else begin)
    return got[len(begin) :], feeder.damaged


def test_the_right_memory_comes_to_its_end(tmp_path: Path) -> None:
    stream = os.urandom(3 * MIB + 17)
    content = saved(stream, cookie=COOKIE)
    digest = hashlib.sha256(content).hexdigest()
    assert fed(tmp_path, content, digest) == (stream, False)


@pytest.mark.parametrize(
    "place",
    [0x6C, -3 * MIB, -1],  # in the XML that is replaced, in the stream, in its last byte
)
def test_the_end_of_damaged_memory_is_never_delivered(tmp_path: Path, place: int) -> None:
    """QEMU starts no processor before it has read all of it."""
    stream = os.urandom(3 * MIB + 17)
    content = bytearray(saved(stream, cookie=COOKIE))
    digest = hashlib.sha256(content).hexdigest()
    content[place] ^= 1
    got, damaged = fed(tmp_path, bytes(content), digest)
    assert damaged
    assert len(got) < len(stream)


def test_memory_that_was_cut_short_is_not_completed(tmp_path: Path) -> None:
    content = saved(os.urandom(3 * MIB))
    got, damaged = fed(tmp_path, content[: -2 * MIB], hashlib.sha256(content).hexdigest())
    assert damaged
    assert len(got) < MIB


def test_a_reader_that_goes_away_ends_it(tmp_path: Path) -> None:
    content = saved(os.urandom(9 * MIB))
    got, damaged = fed(tmp_path, content, hashlib.sha256(content).hexdigest(), most=10)
    assert (len(got), damaged) == (0, False)


def test_a_reader_that_never_comes_does_not_hold_it_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    file = io.BytesIO(saved(b"stream"))
    begin = memory._rewritten(file, NEW)
    feeder = memory._Feeder(begin, file, "", tmp_path / "pipe")
    feeder.start()
    feeder.stop()
    assert feeder not in threading.enumerate()
