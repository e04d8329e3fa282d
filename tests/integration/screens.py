"""The screen of `machine top` under Textual's own pilot, and what stands on it."""

from __future__ import annotations

import time
from collections.abc import Callable

from textual.pilot import Pilot

from machine.cli.top.screen import Top
from machine.store import Store
from machine.workflows.watch import Watch


def top(store: Store | None = None, *, words: str = "", interval: float = 0.3) -> Top:
    return Top(Watch(store or Store()), interval=interval, words=words)


def lines(app: Top) -> list[str]:
    """As a terminal would show them."""
    return [strip.text.rstrip() for strip in app.screen._compositor.render_strips()]


async def until(pilot: Pilot[None], seen: Callable[[str], bool], seconds: float = 60) -> str:
    """Wait until the screen is as wanted; answers it."""
    end = time.monotonic() + seconds
    assert isinstance(pilot.app, Top)
    while not seen(text := "\n".join(lines(pilot.app))):
        assert time.monotonic() < end, text
        await pilot.pause(0.05)
    return text
