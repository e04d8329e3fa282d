"""File templates: jinja2 with a frozen dataclass as context; a missing value fails here."""

from __future__ import annotations

import dataclasses
from typing import Any

from machine.paths import shipped_templates


def render(name: str, context: Any) -> str:
    """``name`` is a path below templates/, such as "libvirt/domain.xml.j2"; XML is escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(shipped_templates()),
        undefined=jinja2.StrictUndefined,
        autoescape=jinja2.select_autoescape(("xml.j2",), default_for_string=False),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    values = {each.name: getattr(context, each.name) for each in dataclasses.fields(context)}
    return environment.get_template(name).render(values)
