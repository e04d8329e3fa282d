"""An unpacked system in a folder, as a guest: what installs an engine on a host does it here too."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from machine import command
from machine.command import Result

_ENTER: Final = """
set -e
mount --rbind /dev "$0/dev"
mount --rbind /proc "$0/proc"
exec chroot "$0" env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \\
    LC_ALL=C.UTF-8 "$@"
"""
_PUT: Final = """
set -e
mkdir -p "$(dirname "$1")"
cat > "$1.new"
chown "$3" "$1.new"
chmod "$2" "$1.new"
mv "$1.new" "$1"
"""


class ChrootGuest:
    """A ``Guest`` that nothing boots. Everything runs as its root: as this computer's root, or as
    that of a user namespace with the user's subordinate ids. Mounts end with each program."""

    user = "root"

    def __init__(self, root: Path) -> None:
        mapped = () if os.geteuid() == 0 else ("--map-root-user", "--map-auto")
        self._inside = ("unshare", "--mount", *mapped, "--", "sh", "-c", _ENTER, str(root))

    def run(
        self,
        *argv: str,
        sudo: bool = False,
        stdin: bytes | None = None,
        timeout: float = 60,
        check: bool = True,
        hide: Sequence[str] = (),
    ) -> Result:
        return command.run(*self._inside, *argv, stdin=stdin, timeout=timeout, check=check)

    def script(
        self, text: str, *, sudo: bool = False, timeout: float = 60, check: bool = True
    ) -> Result:
        return self.run("sh", "-eu", stdin=text.encode(), timeout=timeout, check=check)

    def put(
        self,
        content: bytes | Path,
        path: str,
        *,
        mode: int = 0o644,
        owner: str = "root:root",
        progress: Callable[[int, int], None] | None = None,
        timeout: float = 600,
    ) -> None:
        data = content if isinstance(content, bytes) else content.read_bytes()
        words = ("sh", "-c", _PUT, "sh", path, f"{mode:o}", owner)
        self.run(*words, stdin=data, timeout=timeout)

    def get(self, path: str, *, sudo: bool = False) -> bytes | None:
        found = self.run("sh", "-c", 'test -f "$0" && base64 "$0"', path, check=False)
        if not found.ok:
            return None
        import base64

        return base64.b64decode(found.stdout)

    def get_all(self, paths: Sequence[str], *, sudo: bool = False) -> dict[str, bytes | None]:
        return {path: self.get(path) for path in paths}

    def ask(self, *commands: Sequence[str], sudo: bool = False) -> list[Result]:
        return [self.run(*words, check=False) for words in commands]
