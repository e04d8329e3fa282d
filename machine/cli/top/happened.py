"""The lines on the screen of `top` that say what happened."""

from __future__ import annotations

from collections import deque

from rich.text import Text
from textual import events
from textual.widgets import RichLog


class Events(RichLog):
    """Broken anew for the width that they have now."""

    def __init__(self) -> None:
        super().__init__(wrap=True, min_width=1)
        self._said: deque[Text] = deque(maxlen=500)

    def say(self, line: Text) -> None:
        self._said.append(line)
        self.write(line)

    def on_resize(self, event: events.Resize) -> None:
        self.call_after_refresh(self._again)

    def _again(self) -> None:
        self.clear()
        for line in self._said:
            self.write(line)
