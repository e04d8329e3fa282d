"""Downloads that go on where they broke off, and are believed only when their digest is right."""

from __future__ import annotations

import errno
import hashlib
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import unquote, urlsplit

from machine import wait
from machine.errors import DigestMismatch, DiskFull, DownloadFailed, MachineError

if TYPE_CHECKING:
    import requests

CHUNK: Final = 64 << 10
"""Bytes read at a time: as many are lost when a connection breaks (urllib3 drops a part of them)."""
TIMEOUTS: Final = (20, 60)
"""Seconds to connect, and between two pieces of an answer."""
PAUSES: Final = (0.2, 0.5, 1, 2, 4)
"""Seconds before asking again; as many tries in a row may bring nothing new."""
STEP: Final = 1 << 20
"""Bytes between two tellings of how far it is."""
LONGEST_TEXT: Final = 1 << 20
"""Bytes of a checksum file; the longest published ones have some ten thousand."""
HEX_DIGITS: Final = {"sha256": 64, "sha384": 96, "sha512": 128}
"""What is believed. Files with a given md5 or sha1 can be made."""

Tell = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True)
class Digest:
    """What a file's bytes have to add up to."""

    algorithm: str
    hex: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """ "sha256:HEX". Raises ValueError in words that follow the name of the option or key."""
        algorithm, _, digits = text.lower().partition(":")
        if len(digits) != HEX_DIGITS.get(algorithm) or not re.fullmatch(r"[0-9a-f]+", digits):
            raise ValueError(
                f"is {text!r}, and must be sha256:, sha384: or sha512: and the digest's hex digits"
            )
        return cls(algorithm, digits)

    @classmethod
    def of(cls, path: Path, algorithm: str) -> Self:
        with path.open("rb") as file:
            return cls(algorithm, hashlib.file_digest(file, algorithm).hexdigest())


def file_name(url: str) -> str:
    """The last part of a URL's path."""
    return unquote(urlsplit(url).path.rsplit("/", 1)[-1])


def is_url(text: str) -> bool:
    """Whether it is the http or https URL of a file. One with a password in it is none: it would be
    shown and stored; requests takes passwords from ~/.netrc."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    web = parts.scheme in ("http", "https") and bool(parts.hostname)
    return web and parts.username is None and bool(file_name(text))


_GNU: Final = re.compile(r"(?P<hex>[0-9A-Fa-f]{32,128})(?:\s+\*?(?P<name>\S.*))?")
_BSD: Final = re.compile(r"[\w-]+ ?\((?P<name>.+)\) ?= ?(?P<hex>[0-9A-Fa-f]{32,128})")


def digest_in(listing: str, name: str, *, source: str) -> Digest:
    """The strongest digest of ``name`` in a checksum file: GNU coreutils' lines ("HEX  NAME"), BSD's
    ("SHA256 (NAME) = HEX"), or a file with one digest in all, whatever name stands beside it (some
    publishers name the dated file there). Raises DownloadFailed when there is none, or a weak one."""
    found: dict[str, list[str]] = {}
    for line in listing.splitlines():
        match = _BSD.fullmatch(line.strip()) or _GNU.fullmatch(line.strip())
        if match:
            known = (match["name"] or "").removeprefix("./")
            found.setdefault(known, []).append(match["hex"].lower())
    if name not in found and len(found) == 1:
        (found[name],) = found.values()
    lengths = {length: algorithm for algorithm, length in HEX_DIGITS.items()}
    strong = {len(each): each for each in found.get(name, ()) if len(each) in lengths}
    if strong:
        longest = max(strong)
        return Digest(lengths[longest], strong[longest])
    if name in found:
        raise DownloadFailed(
            f"{source} has only a weak digest of {name}",
            details=f"{found[name][0]}\nmd5 and sha1 are not believed: such files can be forged.",
            hint="If you know a better one: machine image pull --url URL --digest sha256:HEX",
        )
    raise DownloadFailed(f"{source} has no digest of {name}", details=listing[:300].strip())


def text(url: str) -> str:
    """A short text. What was asked for over https is not taken from a server without it. Raises
    DownloadFailed."""
    import requests

    try:
        with _ask(url, {}) as answer:
            hops = [urlsplit(each.url).scheme for each in (*answer.history, answer)]
            if hops[0] == "https" and set(hops) != {"https"}:
                raise DownloadFailed(
                    f"{urlsplit(url).netloc} sends to a server without https",
                    details=f"from {url}\nto   {answer.url}",
                )
            content = b""
            for chunk in answer.iter_content(CHUNK):
                content += chunk
                if len(content) >= LONGEST_TEXT:
                    break
    except _NoAnswer as exc:
        raise _unreachable(url, exc) from exc
    except (_Broken, requests.RequestException) as exc:
        raise DownloadFailed(
            f"{file_name(url)} could not be read", details=f"{url}\n{_reason(exc)}"
        ) from exc
    return content.decode(errors="replace")


def fetch(url: str, target: Path, digest: Digest, tell: Tell = lambda done, total: None) -> None:
    """Bring ``url`` to ``target``, which is complete and has that digest when this returns. What a
    broken download left stays in ``target``, and this call and the next go on with it; if pieces do
    not belong together (the file was changed there), all is fetched anew once. ``tell`` is given
    bytes. Raises DownloadFailed, DiskFull, and DigestMismatch when the server has other content."""
    for last in (False, True):
        whole = _complete(url, target, tell)
        got = Digest.of(target, digest.algorithm)
        if got == digest:
            return
        target.unlink()
        if whole or last:
            raise DigestMismatch(
                f"{file_name(url)} is not what its checksum says, and was thrown away",
                details=f"from   {url}\nwanted {digest}\ngot    {got}",
                hint="The publisher may be replacing it at this moment: try again in a while",
            )


def cannot_write(path: Path, exc: OSError, failed: type[MachineError]) -> MachineError:
    """What to raise for a file of the cache that could not be written."""
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(path.parent, details=f"writing {path}")
    return failed(
        f"The cache cannot be written: {exc.strerror or exc}",
        details=str(exc.filename or path),
        hint="Check its permissions, or name another folder with MACHINE_CACHE_PATH",
    )


class _Broken(Exception):
    """An answer that ended early, or cannot be used: worth asking again."""


class _NoAnswer(_Broken):
    """Not even the beginning of one."""


def _complete(url: str, target: Path, tell: Tell) -> bool:
    """Ask until everything is there. True when one answer brought all of it."""
    tries = failures = 0
    while True:
        have = _size(target)
        try:
            return _receive(url, target, have, tell)
        except _Broken as exc:
            if tries == 0 and isinstance(exc, _NoAnswer):
                raise _unreachable(url, exc) from exc
            failures = 0 if _size(target) > have else failures + 1
            if failures > len(PAUSES):
                raise DownloadFailed(
                    f"The download of {file_name(url)} broke off",
                    details=f"{url}\n{exc}",
                    hint="Run the same command again: it goes on where this one ended",
                ) from exc
        wait.pause(PAUSES[max(failures - 1, 0)])
        tries += 1


def _receive(url: str, target: Path, have: int, tell: Tell) -> bool:
    """One request for what is missing, to its end. True when it brought the whole file."""
    import requests

    try:
        with _ask(url, {"Range": f"bytes={have}-"} if have else {}) as answer:
            if have and answer.status_code == 416 and _complete_length(answer) == have:
                return False
            start = have if answer.status_code == 206 else 0
            if answer.status_code == 416 or start != _range_start(answer):
                target.unlink(missing_ok=True)
                raise _Broken("the server does not have the rest of what is here")
            length = answer.headers.get("Content-Length", "")
            total = start + int(length) if length.isdecimal() else None
            _check_room(target, total - start if total else 0)
            with target.open("ab" if start else "wb") as file:
                done = start
                for chunk in answer.iter_content(CHUNK):
                    file.write(chunk)
                    done += len(chunk)
                    if done % STEP < CHUNK or done == total:
                        tell(done, total)
            return start == 0
    except requests.RequestException as exc:
        raise _Broken(_reason(exc)) from exc
    except OSError as exc:
        raise cannot_write(target, exc, DownloadFailed) from exc


def _ask(url: str, headers: dict[str, str]) -> requests.Response:
    """A successful answer, its body still to be read. Raises DownloadFailed for a refusal."""
    import requests

    try:
        answer = requests.get(
            url,
            headers={"Accept-Encoding": "identity", **headers},
            stream=True,
            timeout=TIMEOUTS,
        )
    except requests.RequestException as exc:
        raise _NoAnswer(_reason(exc)) from exc
    if answer.status_code in (200, 206, 416):
        return answer
    answer.close()
    if answer.status_code in (408, 429) or answer.status_code >= 500:
        raise _Broken(f"{urlsplit(url).netloc} answers {answer.status_code} {answer.reason}")
    raise DownloadFailed(
        f"{urlsplit(url).netloc} answers {answer.status_code} {answer.reason}",
        details=url,
        hint="Has it moved? A location of your own: machine image pull --help",
    )


def _unreachable(url: str, exc: Exception) -> DownloadFailed:
    return DownloadFailed(
        f"There is no answer from {urlsplit(url).netloc}",
        details=f"{url}\n{exc}",
        hint="Is there a way to the internet? A proxy is taken from https_proxy and http_proxy.",
    )


def _range_start(answer: requests.Response) -> int:
    """RFC 9110, 14.4: "bytes 100-199/200"; an answer without it begins at the beginning."""
    match = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    return int(match[1]) if match else 0


def _complete_length(answer: requests.Response) -> int | None:
    """RFC 9110, 14.4, of an answer 416: "bytes */200"."""
    match = re.match(r"bytes \*/(\d+)", answer.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _check_room(target: Path, needed: int) -> None:
    free = shutil.disk_usage(target.parent).free
    if needed > free:
        raise DiskFull(
            target.parent, details=f"{needed >> 20} MiB more are needed, {free >> 20} MiB are free"
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _reason(exc: BaseException) -> str:
    """The innermost words of the nested exceptions of requests and urllib3."""
    while exc.args and isinstance(exc.args[0], BaseException):
        exc = exc.args[0]
    said = getattr(exc, "reason", None) or (exc.args[0] if exc.args else "")
    return str(said) or type(exc).__name__
