"""What an upgrade decides before it does anything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from machine import record
from machine.fallback import Before
from machine.model import EngineOptions, OsRelease
from machine.provisioners.debian import Debian
from machine.runtime.bundle import Bundle, age
from machine.workflows.upgrade import Wish
from tests.replay import Replay


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ((), ("debug=true", "dns=1.1.1.1", "dns=9.9.9.9")),
        (("debug=false",), ("dns=1.1.1.1", "dns=9.9.9.9", "debug=false")),
        (("--dns=8.8.8.8", "mtu=1400"), ("debug=true", "dns=8.8.8.8", "mtu=1400")),
        (("debug",), ("dns=1.1.1.1", "dns=9.9.9.9", "debug")),
    ],
)
def test_an_option_replaces_all_of_its_key(given: tuple[str, ...], left: tuple[str, ...]) -> None:
    recorded = EngineOptions(opts=("debug=true", "dns=1.1.1.1", "dns=9.9.9.9"), env=("A=b",))
    assert Wish(opts=given).options(recorded) == EngineOptions(opts=left, env=("A=b",))


def test_options_of_a_record_change_and_the_rest_of_it_does_not() -> None:
    recorded = EngineOptions(labels=("tier=gold",), opts=("mtu=1400",), tls_sans=("other",))
    made = record.new("m1", "none", record.block(), recorded)
    made.raw["HostOptions"]["EngineOptions"]["LogLevel"] = "warn"
    made.engine_options = Wish(labels=("tier=lead",)).options(recorded)
    again = record.parse("m1", json.dumps(made.as_json()))
    assert again.engine_options.labels == ("tier=lead",)
    assert again.engine_options.opts == ("mtu=1400",)
    assert again.engine_options.tls_sans == ("other",)
    assert again.raw["HostOptions"]["EngineOptions"]["LogLevel"] == "warn"


def bundle(*packages: str) -> Bundle:
    files = tuple((f"packages/{name}_amd64.deb", "") for name in packages)
    return Bundle(
        "b", Path("b.tar"), "", "docker", "2", "packages", "debian", "13", "x86_64", files
    )


def test_what_changes_is_what_has_to_be_brought_back() -> None:
    newer = {("3", "2"): (0, ""), ("1", "2"): (1, "")}
    guest = Replay(
        {f"dpkg --compare-versions {a} gt {b}": answer for (a, b), answer in newer.items()}
    )
    debian = Debian(guest, OsRelease("debian"))
    before = Before("2", "packages", {"engine": "2", "older": "2", "same": "2", "other": "2"})
    offered = bundle("engine_3", "older_1", "same_2", "added_1")
    assert before.changing(debian, offered, exact=False) == {"engine": "2"}
    assert before.changing(debian, offered, exact=True) == {"engine": "2", "older": "2"}


def test_distributions_versions_are_upstreams_with_more_behind() -> None:
    assert age("26.1.5+dfsg1") == age("26.1.5")
    assert age("26.1.10") > age("26.1.5+dfsg1") > age("20.10.24+dfsg1")
