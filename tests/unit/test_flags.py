from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from machine import flags
from machine.errors import BadOption
from machine.flags import option


@dataclass(frozen=True, slots=True)
class Config:
    network: str = option("auto", "network to use", env=("OLD_NETWORK",))
    memory: int | None = option(None, "memory", metavar="MIB", low=128, high=4096)
    autostart: bool = option(False, "start with the computer")
    disks: tuple[str, ...] = option((), "further disks")
    sizes: tuple[int, ...] = option((), "their sizes", low=1)
    mode: str = option("", "a mode", choices=("fast", "slow"))
    hidden: str = "not an option"


def test_one_declaration_gives_flag_variables_and_key() -> None:
    first = flags.options("libvirt", Config)[0]
    assert (first.key, first.flag) == ("network", "--libvirt-network")
    assert first.env == ("MACHINE_LIBVIRT_NETWORK", "OLD_NETWORK")
    assert [each.key for each in flags.options("libvirt", Config)] == [
        "network",
        "memory",
        "autostart",
        "disks",
        "sizes",
        "mode",
    ]


def test_flag_then_variable_then_template_then_default(monkeypatch: pytest.MonkeyPatch) -> None:
    template = {"network": "from-template"}
    assert flags.build("libvirt", Config, {}, {}).network == "auto"
    assert flags.build("libvirt", Config, {}, template).network == "from-template"
    monkeypatch.setenv("OLD_NETWORK", "old")
    assert flags.build("libvirt", Config, {}, template).network == "old"
    monkeypatch.setenv("MACHINE_LIBVIRT_NETWORK", "new")
    assert flags.build("libvirt", Config, {}, template).network == "new"
    assert flags.build("libvirt", Config, {"network": "flag"}, template).network == "flag"


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("memory", "2GB", "whole number"),
        ("memory", "64", "at least 128"),
        ("memory", 99999, "at most 4096"),
        ("memory", True, "whole number"),
        ("autostart", "maybe", "true or false"),
        ("network", ["a"], "text"),
        ("disks", 5, "a list"),
        ("sizes", ("1", "x"), "whole number"),
        ("sizes", "0", "at least 1"),
        ("mode", "medium", "one of fast, slow"),
    ],
)
def test_a_bad_value_names_its_flag(key: str, value: Any, words: str) -> None:
    with pytest.raises(BadOption, match=f"--libvirt-{key}.*{words}"):
        flags.build("libvirt", Config, {key: value}, {})


def test_an_unknown_key_names_the_known_ones() -> None:
    with pytest.raises(BadOption, match="netwrk") as caught:
        flags.build("libvirt", Config, {}, {"netwrk": "x"})
    assert "network" in caught.value.hint


def test_values_survive_json() -> None:
    config = Config(disks=("1", "2"), memory=512, sizes=(1, 2))
    assert flags.from_dict(Config, flags.as_dict(config)) == config
    assert flags.from_dict(Config, {**flags.as_dict(config), "newer": 1}) == config


def test_a_list_is_a_flag_that_repeats_or_text_with_commas() -> None:
    for given in (("1", "2"), "1,2", [1, 2]):
        assert flags.build("libvirt", Config, {"sizes": given}, {}).sizes == (1, 2)
    mode = flags.options("libvirt", Config)[-1]
    assert mode.metavar == "fast|slow"
