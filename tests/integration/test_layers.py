"""Several at once want one layer."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from machine.events import Event, Note, Reporter
from machine.layers import Layer, LayerCache, LayerKind

INPUTS = {"image": "11"}


def test_those_who_come_later_say_that_they_wait_and_take_what_was_made(tmp_path: Path) -> None:
    root, making, waiting = tmp_path / "layers", threading.Event(), threading.Semaphore(0)
    said: list[str] = []

    def keep(event: Event) -> None:
        assert isinstance(event, Note)
        said.append(event.text)
        waiting.release()

    def make(folder: Path) -> Mapping[str, Any]:
        making.set()
        for _ in range(2):
            assert waiting.acquire(timeout=30)
        (folder / "disk.qcow2").write_bytes(b"content")
        return {}

    def refuse(folder: Path) -> Mapping[str, Any]:
        raise AssertionError("It was made twice")

    def later() -> Layer:
        assert making.wait(30)
        return LayerCache(root).ensure(LayerKind.ENGINE, INPUTS, "", refuse, Reporter(keep))

    with ThreadPoolExecutor(2) as pool:
        others = [pool.submit(later) for _ in range(2)]
        made = LayerCache(root).ensure(LayerKind.ENGINE, INPUTS, "", make, Reporter())
        assert [each.result() for each in others] == [made, made]
    assert len(said) == 2
    assert all(each.startswith("Waiting for the layer ") for each in said)
