"""What lies over the screen of `top` for a moment: questions, and text to read."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input, Static

BOX = """
{name} {{ align: center middle; }}
{name} > Vertical {{
    width: 60; max-width: 100%; height: auto; max-height: 100%;
    border: round $warning; padding: 0 1; background: $surface;
}}
"""


class Confirm(ModalScreen[bool]):
    """A question that only the key y says yes to."""

    DEFAULT_CSS = BOX.format(name="Confirm")
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "say(True)", "Yes"),
        Binding("n,escape,q,enter", "say(False)", "No"),
    ]

    def __init__(self, question: str) -> None:
        super().__init__()
        self._question = question

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static(f"{self._question}\n(y/n)", markup=False)

    def action_say(self, answer: bool) -> None:
        self.dismiss(answer)


class Ask(ModalScreen[str | None]):
    """A line to be typed; None for Escape."""

    DEFAULT_CSS = BOX.format(name="Ask")
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "Back")]

    def __init__(self, question: str, *, hidden: bool = False) -> None:
        super().__init__()
        self._question, self._hidden = question, hidden

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static(self._question, markup=False)
            yield Input(password=self._hidden, compact=True)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self.dismiss(event.value)

    def action_leave(self) -> None:
        self.dismiss(None)


class Reading(ModalScreen[None]):
    """Text from its end on."""

    DEFAULT_CSS = """
    Reading > #title { dock: top; height: 1; background: $primary; color: $text; }
    Reading > VerticalScroll { height: 1fr; background: $background; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,l", "leave", "Back")]

    def __init__(self, title: str, text: str) -> None:
        super().__init__()
        self._title, self._text = title, text

    def compose(self) -> ComposeResult:
        yield Static(f"{self._title}   (q: back)", id="title", markup=False)
        with VerticalScroll():
            yield Static(self._text, markup=False)

    def on_mount(self) -> None:
        scroll = self.query_one(VerticalScroll)
        scroll.focus()
        scroll.scroll_end(animate=False)

    def action_leave(self) -> None:
        self.dismiss(None)
