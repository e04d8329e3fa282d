"""nginx.tar as docs/swarm.md has its reader make it: its own commands, with this computer's mirror."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from machine.image_build import apt_mirror
from machine.paths import cache_root
from tests import artefact

NAME: Final = "nginx.tar"
FOLDER: Final = "test-images"
PROMPT: Final = re.compile(r"    [$>] ?")
LESSON: Final = (Path(__file__).parents[1] / "docs" / "swarm.md").read_text()


def commands(text: str) -> list[str]:
    """What a page has its reader type: lines after a prompt, and those that go on."""
    return [PROMPT.sub("", line, count=1) for line in text.splitlines() if PROMPT.match(line)]


def build(target: Path) -> None:
    """Make it, or leave the one that is there."""

    def make(work: Path) -> Path:
        part = LESSON.partition("## An image, without a registry")[2].partition("$ docker import")[
            0
        ]
        sources = f'"deb {apt_mirror()} trixie main"'
        lines = [
            f"{line} {sources}" if line.startswith("mmdebstrap ") else line
            for line in commands(part)
        ]
        subprocess.run(["bash", "-euc", "\n".join(lines)], cwd=work, check=True)
        return work / NAME

    artefact.build(target, make)


if __name__ == "__main__":
    build(Path(sys.argv[1]) if sys.argv[1:] else cache_root() / FOLDER / NAME)
