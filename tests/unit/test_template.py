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
        'image = "debian-12"\ncpus = 1\n[elsewhere]\nnetwork = "a"\ntags = ["x", "y"]\n'
    )
    (tmp_path / "top.toml").write_text(
        'base = ["debian-13", "low"]\ncpus = 3\n[elsewhere]\ntags = ["z"]\n'
    )
    found = template.find(str(tmp_path / "top.toml"))
    assert (found.image, found.cpus, found.name) == ("debian-12", 3, "top")
    assert found.driver == {"elsewhere": {"network": "a", "tags": ["z"]}}


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
        ('image = "x"\nbase = "debian-13"', ":2: base: is 'debian-13', and must be a list"),
        (
            'image = "x"\nbase = ["debian-13", 5]',
            ":2: base: is ['debian-13', 5], and must be a list",
        ),
        ('image = "x"\nbase = ["nosuch"]', ':2: base: There is no template "nosuch"'),
        ('image = "x"\nbase = ["it"]', ":2: base: it is built on this template itself"),
        ('image = "x"\nbundle = "rpm"', ":2: bundle: is 'rpm', and must be packages or static"),
        ('image = "x"\nengine = "podmn"', ":2: engine: is 'podmn', and must be one that is"),
        ("image = { name = 5 }", ":1: image: is {'name': 5}, and must be text"),
        (
            'image = "x"\n[libvirt]\n\nuri = "a"\nmemry = 5',
            ":5: libvirt.memry: unknown key; did you mean memory?",
        ),
        (
            'image = "x"\n[libvirt]\nmemory = "2GB"',
            ":3: libvirt.memory: is '2GB', and must be a whole number",
        ),
        ('image = "x"\nlibvirt.memory = 4', ":2: libvirt.memory: is 4, and must be at least 256"),
        ('image = "x"\nlibvirt = { uri = ["a"] }', ":2: libvirt.uri: is ['a'], and must be text"),
        (
            'image = "x"\n[libvirt.memory]\na = 1',
            ":2: libvirt.memory: is {'a': 1}, and must be a whole",
        ),
        (
            'image = "x"\n[libvrit]\nmemory = 512',
            ":2: libvrit: unknown table; did you mean libvirt?",
        ),
        ("[image]\nname = 5", ":1: image: is {'name': 5}, and must be text"),
        ('image = "x"\n[[libvirt]]\nuri = "a"', ":2: libvirt: unknown key"),
        ("cpus = 1", "no `image`"),
        ('image = "x"\ncpus = ', ":2: Invalid value"),
        ('image = "x', ":1: Unterminated string"),
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


def test_a_mistake_in_a_base_is_named_where_it_stands(tmp_path: Path) -> None:
    (tmp_path / "low.toml").write_text('image = "x"\n\n[libvirt]\nmemory = "much"\n')
    (tmp_path / "top.toml").write_text('base = ["low"]\n')
    with pytest.raises(TemplateError) as caught:
        template.find(str(tmp_path / "top.toml"))
    assert caught.value.brief.startswith(f"{tmp_path / 'low.toml'}:4: libvirt.memory: ")


def test_two_templates_that_are_each_others_base(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('base = ["b"]\n')
    (tmp_path / "b.toml").write_text('image = "x"\n\nbase = [\n  "a",\n]\n')
    with pytest.raises(TemplateError) as caught:
        template.find(str(tmp_path / "a.toml"))
    assert (
        caught.value.brief == f"{tmp_path / 'b.toml'}:3: base: a is built on this template itself"
    )


def test_options_of_a_driver_that_is_not_here_are_let_pass(tmp_path: Path) -> None:
    """So that a template can be shared; `template validate` says that they were not checked."""
    (tmp_path / "it.toml").write_text('image = "x"\n[elsewhere]\nzone = 5\n[libvirt]\ncpus = 2\n')
    found = template.find(str(tmp_path / "it.toml"))
    assert template.unknown_drivers(found) == ["elsewhere"]
    assert found.driver["elsewhere"] == {"zone": 5}
