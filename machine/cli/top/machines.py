"""The table of machines on the screen of `top`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.widgets import DataTable

from machine.cli.top import table
from machine.workflows.watch import Watched

COLOURS: Final = {
    "Running": "green",
    "Creating": "cyan",
    "Starting": "cyan",
    "Stopping": "yellow",
    "Paused": "yellow",
    "Stopped": "dim",
    "Saved": "dim",
}
"""Of states; of all others it is red."""


class Machines(DataTable[Text]):
    """Enter is a key as every other, and a mouse click is none."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "app.ssh", "SSH")]

    def __init__(self, **keywords: Any) -> None:
        super().__init__(cursor_type="row", cursor_foreground_priority="renderable", **keywords)
        self._fitting: list[table.Column] = []

    @property
    def chosen(self) -> str:
        """The machine that the cursor is on; "" if there is none."""
        if not self.row_count:
            return ""
        return str(self.coordinate_to_cell_key(self.cursor_coordinate).row_key.value)

    def show(self, shown: Sequence[Watched], width: int, working: Mapping[str, str]) -> None:
        """The cells anew; the table itself only if there are other rows or columns, so that what was
        scrolled to and chosen stays. ``working`` is what is being done, by machine."""
        columns = table.fitting(width, shown)
        names = [each.name for each in shown]
        if columns != self._fitting or names != [str(key.value) for key in self.rows]:
            self._build(columns, shown, working)
            return
        for each in shown:
            for column in columns:
                self.update_cell(each.name, column.head, _cell(column, each, working))

    def _build(
        self,
        columns: list[table.Column],
        shown: Sequence[Watched],
        working: Mapping[str, str],
    ) -> None:
        chosen = self.chosen
        self._fitting = columns
        self.clear(columns=True)
        for column in columns:
            self.add_column(column.head, width=column.width, key=column.head)
        for at, each in enumerate(shown):
            self.add_row(*(_cell(column, each, working) for column in columns), key=each.name)
            if each.name == chosen:
                self.move_cursor(row=at, animate=False)


def _cell(column: table.Column, watched: Watched, working: Mapping[str, str]) -> Text:
    text, style = column.cell(watched), ""
    if column.head == "NAME":
        text = table.cut_name(text, column.width)
    elif column.head == "STATE":
        style = COLOURS.get(text, "red")
    elif column.head == "NOTE":
        text = working.get(watched.name) or text
        style = "cyan" if watched.at_work else "yellow"
    return Text(table.cut(text, column.width), style, no_wrap=True)
