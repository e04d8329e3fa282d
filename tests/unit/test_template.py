from __future__ import annotations

from pathlib import Path

import pytest

from machine import template
from machine.errors import TemplateError


def test_shipped_templates_are_valid() -> None:
    assert {"default", "debian-12", "debian-13"} <= set(template.names())
    for name in template.names():
        assert template.find(name).image


def test_later_wins_tables_merge_lists_replace(tmp_path: Path) -> None:
    (tmp_path / "low.toml").write_text(
        'image = "debian-12"\ncpus = 1\n[libvirt]\nnetwork = "a"\ntags = ["x", "y"]\n'
    )
    (tmp_path / "top.toml").write_text(
        'base = ["debian-13", "low"]\ncpus = 3\n[libvirt]\ntags = ["z"]\n'
    )
    found = template.find(str(tmp_path / "top.toml"))
    assert (found.image, found.cpus, found.name) == ("debian-12", 3, "top")
    assert found.driver == {"libvirt": {"network": "a", "tags": ["z"]}}


def test_the_users_own_come_first(own_home: Path) -> None:
    folder = own_home / ".config" / "machine" / "templates"
    folder.mkdir(parents=True)
    (folder / "debian-13.toml").write_text('image = "mine"\n')
    assert template.find("debian-13").image == "mine"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('\nmemory_mb = 5\nimage = "x"', ":2: memory_mb: unknown key; did you mean memory_mib?"),
        ('image = "x"\ncpus = "two"', ":2: cpus: is 'two', and must be a whole number"),
        ('image = "x"\ncpus = true', ":2: cpus: is True"),
        ('image = "x"\ncpus = 0', ":2: cpus: is 0, and must be between 1 and 255"),
        ("image = 5", ":1: image: is 5, and must be text"),
        ('image = "x"\nuser = "Bad User"', ":2: user:"),
        ('image = "x"\nbase = "debian-13"', ":2: base: must be a list"),
        ('image = "x"\nbase = ["nosuch"]', 'There is no template "nosuch"'),
        ('image = "x"\nbase = ["it"]', "its own base"),
        ("cpus = 1", "no `image`"),
        ("image = ", "Invalid value"),
    ],
)
def test_a_mistake_is_named_with_line_and_key(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "it.toml"
    path.write_text(text)
    with pytest.raises(TemplateError) as caught:
        template.find(str(path))
    assert words in caught.value.brief


def test_an_unknown_name_has_a_suggestion() -> None:
    with pytest.raises(TemplateError) as caught:
        template.find("debain-13")
    assert "debian-13" in caught.value.hint
