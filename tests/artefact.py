"""What `make setup` builds for the tests from the distribution's packages, each once."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from machine.image_build import apt_mirror, call

TRIXIE: Final = tuple(f"{suite} main" for suite in ("trixie", "trixie-updates"))
CACHE: Final = Path(os.environ.get("MACHINE_CACHE_PATH") or Path.home() / ".cache" / "machine")
"""Where it all lies; taken before a test changes HOME."""
BARE: Final = tuple(
    f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale")
)
"""Without what nobody reads on such a system."""


def build(target: Path, make: Callable[[Path], Path]) -> None:
    """``make`` gets a folder to work in, and answers what is to have the target's name; a target
    that is there is left as it is. It is whole as soon as it has its name. Raises what it raises."""
    if target.exists():
        return
    print(f"==> Building {target.name} for the tests", file=sys.stderr)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as name:
        work = Path(name)
        work.chmod(0o755)  # the root of a user namespace has to look in
        make(work).rename(target)


def bootstrap(
    archive: Path,
    packages: Sequence[str],
    *options: str,
    suite: str = "trixie",
    variant: str = "minbase",
    sources: Sequence[str] = TRIXIE,
) -> None:
    """A Debian as a tar archive, with these packages and what they depend on. Raises ImageError."""
    call(
        "mmdebstrap",
        f"--mode={'root' if os.geteuid() == 0 else 'unshare'}",
        f"--variant={variant}",
        f"--include={','.join(packages)}",
        "--aptopt=APT::Install-Recommends false",
        *options,
        suite,
        archive,
        *(f"deb {apt_mirror()} {source}" for source in sources),
    )
