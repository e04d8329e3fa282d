"""The pictures of `machine top` in docs/pictures: `python -m tests.pictures` draws them anew."""

from __future__ import annotations

import asyncio
import html
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from machine.cli.top.screen import Top
from machine.model import Amount, State
from machine.store import Store
from machine.workflows.survey import Row
from machine.workflows.watch import Watch, Watched
from tests.integration.screens import until

FOLDER: Final = Path(__file__).parents[1] / "docs" / "pictures"
GIB: Final = 1 << 30


def running(name: str, role: str, cpu: float, memory: float, disk: float) -> Watched:
    return Watched(
        Row(name, "libvirt", State.RUNNING, "tcp://192.168.141.2:2376", "26.1.5+dfsg1", role),
        cpu=cpu,
        cpus=2,
        memory=Amount(int(memory * GIB), 2 * GIB),
        disk=Amount(int(disk * GIB), 20 * GIB),
        containers={"web": "running", "proxy": "running"},
    )


BEFORE: Final = (
    running("manager1", "leader", 0.12, 0.71, 1.3),
    running("worker1", "worker", 0.86, 1.4, 4.2),
    running("worker2", "worker", 0.03, 0.62, 1.1),
    Watched(Row("old", "virtualbox", State.RUNNING)),
    Watched(Row("web2", "generic", State.UNKNOWN, error="No SSH at 203.0.113.7 port 22")),
)
CREATING: Final = Watched(
    Row("worker3", "libvirt", State.RUNNING),
    step="boot",
    done=("preflight", "image", "bundle", "layer", "keys", "vm"),
    at_work=True,
)
AFTER: Final = (
    BEFORE[0],
    replace(BEFORE[1], containers={"web": "exited", "proxy": "running"}),
    BEFORE[2],
    CREATING,
    replace(BEFORE[3], row=replace(BEFORE[3].row, state=State.STOPPED)),
    BEFORE[4],
)


class Recorded(Watch):
    """Two looks at machines of which there are none."""

    looks = 0

    def look(self, names: Iterable[str]) -> list[Watched]:
        self.looks += 1
        return list(BEFORE if self.looks == 1 else AFTER)


async def draw(size: tuple[int, int]) -> str:
    app = Top(Recorded(Store()), interval=0.5)
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda text: "Creating" in text and "worker3" in text)
        await pilot.pause()
        drawn = app.export_screenshot(title="machine top", simplify=True)
    return tidy(drawn)


def tidy(drawn: str) -> str:
    """The same at every time of day, and without fonts from elsewhere."""
    drawn = re.sub(r"@font-face \{.*?\}\n", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r"\d\d:\d\d:\d\d", "14:03:27", drawn).replace("every&#160;0.5", "every&#160;3")
    drawn = re.sub(r"terminal-\d+", "terminal", drawn)
    return re.sub(r"[ \t]+$", "", drawn, flags=re.MULTILINE)


def words(picture: str) -> list[str]:
    """What is written in it."""
    parts = re.findall(r"<text [^>]*>(.*?)</text>", picture, re.DOTALL)
    return html.unescape(" ".join(parts)).split()


def drawn() -> Mapping[str, str]:
    wide, narrow = (asyncio.run(draw(size)) for size in ((100, 18), (40, 14)))
    return {"top.svg": wide, "top-40.svg": narrow}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, picture in drawn().items():
        (FOLDER / name).write_text(picture)
