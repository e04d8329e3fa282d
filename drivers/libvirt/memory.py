"""Memory that libvirt saved, given to another domain: the one place that knows what the file is.

virDomainSave writes a header, the domain's XML, and QEMU's migration stream (libvirt, src/qemu/
qemu_saveimage.h; version 2 since 2011). virDomainRestore compares name, UUID and devices of the XML
in it with what it is asked to make, so another machine's XML has to stand in the file. It is written
into a pipe, followed by the stream as it is: nothing is copied, and libvirt's own restore does the
rest. A header that is not understood is refused, and the machine boots as any other.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final

from machine.drivers.libvirt.connection import doing, module
from machine.errors import WarmRefused

FILE: Final = "memory"
_HEADER: Final = struct.Struct("=16s5I56x")
"""Magic, version, bytes of XML and cookie, was it running, compression, where the cookie begins."""
_MAGIC: Final = b"LibvirtQemudSave"
_VERSION: Final = 2
_CHUNK: Final = 1 << 20


def save(domain: Any, folder: Path) -> None:
    """Stop a domain and keep its memory in ``folder``, readable by this user alone. libvirt may
    give the file that it writes to root: what was opened before that stays readable."""
    raw = folder / f"{FILE}.raw"
    with _private(raw) as file:
        try:
            with doing("saving memory"):
                domain.save(str(raw))
            if raw.stat().st_uid == os.geteuid():
                raw.rename(folder / FILE)
            else:
                with _private(folder / FILE) as target:
                    file.seek(0)
                    shutil.copyfileobj(file, target, _CHUNK)
        finally:
            raw.unlink(missing_ok=True)
    (folder / FILE).chmod(0o600)


def restore(conn: Any, source: Path, sha256: str, xml: str) -> None:
    """Start the domain of ``xml``, which is defined already, from saved memory. Its processors run
    only when every byte of it was seen to be the right one. Raises WarmRefused and libvirtError,
    and nothing runs then."""
    libvirt = module()
    with source.open("rb") as file, tempfile.TemporaryDirectory(prefix="machine-") as folder:
        begin = _rewritten(file, xml)
        pipe = Path(folder) / "memory"
        os.mkfifo(pipe, 0o600)
        feeder = _Feeder(begin, file, sha256, pipe)
        feeder.start()
        try:
            conn.restoreFlags(str(pipe), None, libvirt.VIR_DOMAIN_SAVE_RUNNING)
        except libvirt.libvirtError as exc:
            feeder.stop()
            if feeder.damaged:
                raise WarmRefused("its memory is damaged", spent=True) from exc
            raise
        feeder.stop()


class _Feeder(threading.Thread):
    """Writes the file into the pipe, and holds its end back until its digest is the right one."""

    def __init__(self, begin: bytes, file: IO[bytes], sha256: str, pipe: Path) -> None:
        super().__init__(daemon=True)
        self.begin, self.file, self.sha256, self.pipe = begin, file, sha256, pipe
        self.damaged = False

    def run(self) -> None:
        with suppress(OSError):  # libvirt has stopped reading, and says itself why
            self._feed()

    def _feed(self) -> None:
        source, stream = self.file.fileno(), self.file.tell()
        end = os.fstat(source).st_size
        held = max(stream, end - _CHUNK)
        with ThreadPoolExecutor(1) as beside, self.pipe.open("wb", buffering=0) as out:
            digest = beside.submit(_digest, source, end)
            _widen(out)
            out.write(self.begin)
            _send(out, source, stream, held)
            self.damaged = digest.result() != self.sha256
            if not self.damaged:
                _send(out, source, held, end)

    def stop(self) -> None:
        """Return when it has ended, also where nobody ever opened the other end."""
        while self.is_alive():
            with suppress(OSError):
                os.close(os.open(self.pipe, os.O_RDONLY | os.O_NONBLOCK))
            self.join(0.05)


def _rewritten(file: IO[bytes], xml: str) -> bytes:
    """The file's beginning with another XML; leaves ``file`` where QEMU's stream begins."""
    head = file.read(_HEADER.size)
    if len(head) < _HEADER.size:
        raise WarmRefused("its memory is damaged", spent=True)
    magic, version, length, running, compression, cookie_at = _HEADER.unpack(head)
    if (magic, version) != (_MAGIC, _VERSION):
        raise WarmRefused(f"this libvirt keeps memory in a form that is not known here ({version})")
    data = file.read(length)
    cookie = data[cookie_at:].rstrip(b"\0") + b"\0" if cookie_at else b""
    new = xml.encode() + b"\0"
    words = (_MAGIC, _VERSION, len(new + cookie), running, compression, len(new) if cookie else 0)
    return _HEADER.pack(*words) + new + cookie


def _digest(source: int, size: int) -> str:
    digest = hashlib.sha256()
    for offset in range(0, size, _CHUNK):
        digest.update(os.pread(source, _CHUNK, offset))
    return digest.hexdigest()


def _send(out: IO[bytes], source: int, offset: int, end: int) -> None:
    """By the kernel, from file to pipe; the other end reads while the digest is made."""
    while offset < end:
        sent = os.sendfile(out.fileno(), source, offset, min(_CHUNK, end - offset))
        if not sent:
            return  # the file has become shorter
        offset += sent


def _widen(out: IO[bytes]) -> None:
    import fcntl

    with suppress(OSError):
        fcntl.fcntl(out.fileno(), fcntl.F_SETPIPE_SZ, _CHUNK)


def _private(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), "r+b")
