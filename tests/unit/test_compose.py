from __future__ import annotations

from pathlib import Path

import pytest

from machine.model import Published
from machine.runtime.docker import compose

CONFIG = {
    "services": {
        "web": {
            "ports": [
                {"target": 80, "published": "8080", "protocol": "tcp"},
                {"target": 81, "published": "8081", "host_ip": "0.0.0.0"},
                {"target": 53, "published": "53", "host_ip": "10.0.0.5", "protocol": "udp"},
                {"target": 99, "protocol": "tcp"},
                {"target": 90, "published": "9000-9001"},
            ],
            "volumes": [
                {"type": "bind", "source": "/p/www", "target": "/www"},
                {"type": "volume", "source": "data", "target": "/data"},
                {"type": "tmpfs", "target": "/tmp"},
            ],
            "secrets": [{"source": "password"}, {"source": "elsewhere"}],
            "configs": [{"source": "settings"}],
        },
        "plain": {"image": "box"},
    },
    "secrets": {"password": {"file": "/p/password"}, "elsewhere": {"environment": "X"}},
    "configs": {"settings": {"file": "/p/settings"}},
    "volumes": {
        "data": {"driver_opts": {"type": "none", "o": "bind", "device": "/p/data"}},
        "usual": None,
    },
}
"""In the words of docker compose config --format json (2.26)."""


def test_what_of_a_project_is_mounted_and_published() -> None:
    mounts = {str(each) for each in compose._mounts(CONFIG)}
    assert mounts == {"/p/www", "/p/password", "/p/settings", "/p/data"}
    assert list(compose._ports(CONFIG)) == [
        Published("web", 8080),
        Published("web", 8081),
        Published("web", 53, "10.0.0.5", "udp"),
    ]


@pytest.mark.parametrize(
    ("words", "own"),
    [
        ("up -d", 0),
        ("-f a.yaml up", 2),
        ("--file=a.yaml -p x --compatibility --profile y logs -f", 6),
        ("--help", 1),
        ("", 0),
    ],
)
def test_the_options_before_the_command(words: str, own: int) -> None:
    assert compose.leading(words.split()) == words.split()[:own]


@pytest.mark.parametrize(
    ("words", "lasts"),
    [
        ("up", True),
        ("up --build web", True),
        ("up -d", False),
        ("run --rm web", True),
        ("logs", False),
        ("logs -f", True),
        ("create", False),
    ],
)
def test_whether_there_is_time_to_use_what_runs(words: str, lasts: bool) -> None:
    assert compose._lasts(words.split()) is lasts


def test_where_a_project_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Compose finds it: from the options, from a variable, or upward."""
    deep = tmp_path / "project" / "deep"
    deep.mkdir(parents=True)
    (tmp_path / "project" / "compose.yml").touch()
    monkeypatch.chdir(deep)
    monkeypatch.setenv("PWD", str(deep))
    monkeypatch.delenv("COMPOSE_FILE", raising=False)
    assert compose._folder([]) == tmp_path / "project"
    assert compose._folder(["-f", "../x/c.yaml"]) == tmp_path / "project" / "x"
    assert compose._folder(["--project-directory=.."]) == tmp_path / "project"
    monkeypatch.setenv("COMPOSE_FILE", "../../c.yaml:d.yaml")
    assert compose._folder([]) == tmp_path
    link = tmp_path / "link"
    link.symlink_to(deep)
    monkeypatch.delenv("COMPOSE_FILE")
    monkeypatch.setenv("PWD", str(link))
    assert compose._folder(["-f", "c.yaml"]) == link


def test_the_rules_of_a_dockerignore(tmp_path: Path) -> None:
    file = tmp_path / ".dockerignore"
    assert compose._patterns(file) == []
    file.write_text("# no rule\n\nnode_modules\n**/*.log\n/build/*\n!build/kept\n")
    ignore = compose._matcher(compose._patterns(file))
    left_out = ("node_modules", "node_modules/a/b", "a.log", "x/y.log", "build/out")
    assert all(ignore(path) for path in left_out)
    assert not any(ignore(path) for path in ("src/node", "build", "build/kept", "no rule"))
