"""Stacked bars as SVG, on a ground of its own: it is read on a light page and on a dark one."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement, indent, tostring

WIDTH, LEFT, RIGHT, EDGE = 860, 170, 70, 20
BAR, BETWEEN, LINE = 24, 10, 22
LEGEND_COLUMNS = 4
MOST_TICKS = 8
FONT = "font-family: system-ui, sans-serif; font-size: 13px; fill: #222"


@dataclass(frozen=True, slots=True)
class Bar:
    label: str
    parts: Mapping[str, float]  # seconds

    @property
    def whole(self) -> float:
        return sum(self.parts.values())


def draw(title: str, panels: Sequence[Sequence[Bar]], colours: Mapping[str, str]) -> str:
    """Each panel has an axis of its own; parts have the colours' order in the legend."""
    svg = Element("svg", xmlns="http://www.w3.org/2000/svg", style=FONT)
    ground = SubElement(svg, "rect", width=str(WIDTH), rx="6", fill="#fff")
    y = EDGE + LINE / 2
    _text(svg, EDGE, y, title, style="font-weight: 600")
    y += LINE
    for bars in panels:
        y = _panel(svg, y, bars, colours)
    y = _legend(svg, y, colours) + EDGE
    ground.set("height", f"{y:g}")
    svg.set("viewBox", f"0 0 {WIDTH} {y:g}")
    svg.set("width", str(WIDTH))
    svg.set("height", f"{y:g}")
    indent(svg)
    return tostring(svg, encoding="unicode") + "\n"


def _panel(svg: Element, top: float, bars: Sequence[Bar], colours: Mapping[str, str]) -> float:
    """Answers where it ends."""
    step = _tick(max(bar.whole for bar in bars))
    scale = (WIDTH - LEFT - RIGHT) / max(bar.whole for bar in bars)
    bottom = top + len(bars) * (BAR + BETWEEN)
    for number in itertools.count():
        seconds = number * step
        x = LEFT + seconds * scale
        if x > WIDTH - RIGHT:
            break
        line = {"x1": f"{x:.1f}", "x2": f"{x:.1f}", "y1": f"{top - 4:g}", "y2": f"{bottom:g}"}
        SubElement(svg, "line", line, stroke="#ddd")
        _text(svg, x, bottom + 12, f"{seconds:g} s", anchor="middle")
    for number, bar in enumerate(bars):
        y = top + number * (BAR + BETWEEN)
        _text(svg, LEFT - 10, y + BAR / 2, bar.label, anchor="end")
        x = float(LEFT)
        for part, colour in colours.items():
            width = bar.parts.get(part, 0.0) * scale
            size = {"x": f"{x:.1f}", "y": f"{y:g}", "width": f"{width:.1f}", "height": f"{BAR}"}
            drawn = SubElement(svg, "rect", size, fill=colour)
            SubElement(drawn, "title").text = f"{part}: {bar.parts.get(part, 0.0):.1f} s"
            x += width
        _text(svg, x + 8, y + BAR / 2, f"{bar.whole:.1f} s")
    return bottom + 2 * LINE


def _legend(svg: Element, top: float, colours: Mapping[str, str]) -> float:
    column = (WIDTH - 2 * EDGE) / LEGEND_COLUMNS
    for number, (part, colour) in enumerate(colours.items()):
        x = EDGE + number % LEGEND_COLUMNS * column
        y = top + number // LEGEND_COLUMNS * LINE
        box = {"x": f"{x:g}", "y": f"{y - 7:g}", "width": "14", "height": "14"}
        SubElement(svg, "rect", box, fill=colour)
        _text(svg, x + 20, y, part)
    return top + -(-len(colours) // LEGEND_COLUMNS) * LINE - LINE / 2


def _text(
    svg: Element, x: float, y: float, text: str, *, anchor: str = "start", style: str = ""
) -> None:
    where = {"x": f"{x:.1f}", "y": f"{y + 4.5:.1f}", "text-anchor": anchor}
    if style:
        where["style"] = style
    SubElement(svg, "text", where).text = text


def _tick(most: float) -> float:
    """Seconds between two lines of an axis: 1, 2 or 5 of some power of ten."""
    for power in range(-3, 6):
        for factor in (1, 2, 5):
            if most / (factor * 10.0**power) <= MOST_TICKS:
                return factor * 10.0**power
    raise ValueError(most)
