"""What the screen of `top` has to show of the hosts m1 and w1; run beside them, in their network."""

from __future__ import annotations

import asyncio
import io
import re
import tarfile
from pathlib import Path

from textual.pilot import Pilot

from machine.host import Host
from machine.store import Store
from tests.integration.screens import lines, top, until


def connections() -> set[str]:
    """To engines, by their ends here: /proc/net/tcp has them in hexadecimal; 01 is established."""
    listed = Path("/proc/net/tcp").read_text()
    return set(re.findall(r"^ *\d+: (\w+:\w+) \w+:0948 01", listed, re.MULTILINE))


def image() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        tar.add("/bin/busybox", "bin/busybox")
    return content.getvalue()


async def scene(pilot: Pilot[None]) -> None:
    await until(pilot, lambda text: "2 machines, 2 running" in text and text.count("0/0") == 2)
    before = connections()
    assert len(before) == 2, before
    with Host.load(Store(), "m1").api() as client:
        client.import_image_from_data(image(), repository="hello")
        words = ["/bin/busybox", "sleep", "600"]
        made = client.create_container("hello", words, name="web", host_config={})
        client.start(made["Id"])
        await until(pilot, lambda text: "m1 container web is running" in text and "1/1" in text)
        client.remove_container("web", force=True)
    await until(pilot, lambda text: "m1 container web is removed" in text)
    await pilot.pause(1)
    assert connections() == before  # after many looks
    await pilot.press("d")
    await until(pilot, lambda text: "as it says itself" in text)
    await pilot.press("d", "l")
    await until(pilot, lambda text: "m1: log of its engine" in text)
    await pilot.press("q")
    print("cut w1 off", flush=True)
    await until(pilot, lambda text: "w1 Running -> Unknown" in text)
    assert any(line.split()[:2] == ["m1", "Running"] for line in lines(pilot.app))  # type: ignore[arg-type]
    await pilot.press("q")


async def main() -> None:
    async with top().run_test(size=(80, 24)) as pilot:
        await scene(pilot)
    print("done")


if __name__ == "__main__":
    asyncio.run(main())
