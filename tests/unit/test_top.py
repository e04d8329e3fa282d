"""What `machine top` makes of what it is told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import cast

import pytest

from machine.cli.top import table
from machine.drivers.libvirt import usage
from machine.errors import EngineUnreachable
from machine.host import Host
from machine.model import Amount, State, Usage
from machine.workflows import measure
from machine.workflows.news import changes
from machine.workflows.survey import Row
from machine.workflows.watch import Line, Watched

NOBODY = cast(Host, None)
RUNNING = Watched(Row("w1", "libvirt", State.RUNNING, engine_version="26.1.5"), containers={})


def in_swarm(watched: Watched, role: str) -> Watched:
    return replace(watched, row=replace(watched.row, swarm=role))


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0B"),
        (999, "999B"),
        (1000, "1.0K"),
        (812 << 20, "812M"),
        (1000 << 20, "1.0G"),
        (1288490189, "1.2G"),
        (20 << 30, "20G"),
        (1 << 50, "1.0P"),
    ],
)
def test_sizes_have_four_characters_at_most(number: int, text: str) -> None:
    assert table.size(number) == text


def test_a_machine_that_tells_nothing_has_dashes() -> None:
    silent = Watched(Row("w1", "generic", State.STOPPED))
    assert table.rows([silent]) == [["w1", "Stopped", "-", "-", "-", "-", "-", ""]]


def test_a_machine_that_tells_everything() -> None:
    told = replace(
        RUNNING,
        cpu=0.423,
        memory=Amount(812 << 20, 2 << 30),
        disk=Amount(1 << 30),
        containers={"web": "running", "job": "exited"},
    )
    told = in_swarm(told, "leader")
    cells = ["w1", "Running", "42%", "812M/2.0G", "1.0G", "1/2", "leader", ""]
    assert table.rows([told]) == [cells]


def heads(width: int, *names: str) -> list[str]:
    machines = [Watched(Row(name)) for name in names or ("w1",)]
    columns = table.fitting(width, machines)
    assert sum(each.width + table.GAP for each in columns) <= width
    return [each.head for each in columns]


def test_eighty_columns_have_room_for_what_matters() -> None:
    assert heads(79) == ["NAME", "STATE", "CPU", "MEMORY", "DISK", "CONT", "SWARM", "NOTE"]
    assert heads(79, "a-name-that-is-longer-than-the-screen-has-room-for") == heads(79)


def test_forty_columns_have_names_and_states() -> None:
    assert heads(39) == ["NAME", "STATE", "CPU", "CONT"]


def test_wide_ones_have_more() -> None:
    assert heads(140)[-3:] == ["DRIVER", "ENGINE", "NOTE"]
    assert heads(90)[-2:] == ["SWARM", "NOTE"]  # it has most of the room


def test_the_narrowest_has_names() -> None:
    assert [each.head for each in table.fitting(3, [])] == ["NAME"]


def test_long_names_keep_their_ends() -> None:
    assert table.cut_name("production-worker-12", 10) == "prod…er-12"
    assert table.cut_name("worker1", 10) == "worker1"


def test_a_create_at_work_says_where_it_is() -> None:
    row = Row("w1", state=State.RUNNING, error="its create has not ended")
    creating = Watched(row, step="boot", done=("preflight", "image"), at_work=True)
    assert (table.state(creating), table.note(creating)) == ("Creating", "create: boot (2 done)")
    left = replace(creating, at_work=False)
    assert table.state(left) == "Running"
    assert table.note(left) == "create cut off at boot: machine create --resume w1"


def test_filtering_takes_all_words() -> None:
    manager = in_swarm(RUNNING, "manager")
    assert table.matches(manager, "")
    assert table.matches(manager, "W1 run")
    assert table.matches(manager, "libvirt manager")
    assert not table.matches(manager, "w1 stopped")


def test_details_say_where_figures_come_from() -> None:
    told = replace(RUNNING, cpus=2, memory=Amount(1 << 30, 2 << 30))
    assert "memory 1.0G/2.0G, disk - (as its provider says)" in table.details(told, inside=False)
    assert "(as it says itself)" in table.details(told, inside=True)
    refused = replace(RUNNING, no_login="no key fits")
    assert "it cannot say: no key fits" in table.details(refused, inside=True)


def news(was: Watched, now: Watched) -> list[str]:
    return [text for name, text in changes({"w1": was}, {"w1": now}) if name == "w1"]


def state(given: State, error: str = "") -> Watched:
    return replace(RUNNING, row=replace(RUNNING.row, state=given, error=error))


def test_what_stays_is_no_news() -> None:
    assert news(RUNNING, RUNNING) == []


def test_states_and_errors_are_news() -> None:
    assert news(RUNNING, state(State.STOPPED)) == ["Running -> Stopped"]
    assert news(RUNNING, state(State.RUNNING, "no answer")) == ["no answer"]
    assert news(state(State.RUNNING, "no answer"), RUNNING) == ["answers again"]
    assert news(state(State.RUNNING, "no answer"), state(State.STOPPED)) == ["Running -> Stopped"]


def test_machines_that_come_and_go_are_news() -> None:
    assert list(changes({}, {"w1": RUNNING})) == [("w1", "is new: Running")]
    assert list(changes({"w1": RUNNING}, {})) == [("w1", "is removed")]


def test_containers_are_news() -> None:
    was = replace(RUNNING, containers={"web": "running", "job": "running"})
    now = replace(RUNNING, containers={"job": "exited", "db": "running"})
    assert news(was, now) == [
        "container web is removed",
        "container db is running",
        "container job is exited",
    ]
    assert news(replace(was, containers=None), now) == []


def test_steps_and_swarms_are_news() -> None:
    boot = replace(RUNNING, step="boot", at_work=True)
    assert news(boot, replace(boot, step="verify")) == ["its create is at: verify"]
    assert news(boot, RUNNING) == ["its create has ended"]
    assert news(RUNNING, in_swarm(RUNNING, "worker")) == ["in the swarm: not -> worker"]


PROC = """\
cpu  1000 50 250 90000 700 0 20 0 5 0
cpu0 500 25 125 45000 350 0 10 0 5 0
cpu1 500 25 125 45000 350 0 10 0 0 0
intr 1 2 3
ctxt 7
MemTotal:        2000 kB
MemFree:          100 kB
MemAvailable:    1500 kB
Filesystem     1024-blocks    Used Available Capacity Mounted on
/dev/vda          10000000 1200000   8800000      12% /
"""


def test_what_a_host_says_of_itself() -> None:
    disk = Amount(1200000 << 10, 10000000 << 10)
    assert measure.parsed(PROC) == Usage(13.2, 2, Amount(500 << 10, 2000 << 10), disk)
    assert measure.parsed("") == Usage()


def test_what_libvirt_says_of_a_domain() -> None:
    told = {
        "cpu.time": 12_500_000_000,
        "vcpu.current": 2,
        "balloon.maximum": 2048,
        "balloon.rss": 1024,
        "block.count": 2,
        "block.0.allocation": 1000,
        "block.0.capacity": 5000,
        "block.1.allocation": 200,
        "block.1.capacity": 300,
    }
    read = usage.read(told)
    assert read == Usage(12.5, 2, Amount(1 << 20, 2 << 20), Amount(1200, 5300))
    assert usage.read({"state.state": 1}) == Usage()
    threads = {"vcpu.maximum": 3, "vcpu.0.time": 2_000_000_000, "vcpu.1.time": 500_000_000}
    assert usage.read(threads).cpu_seconds == 2.5


def test_a_line_is_opened_once_and_anew_when_it_broke() -> None:
    opened = []

    def answers(host: Host) -> Iterator[int]:
        opened.append(host)
        yield from (1, 2)
        raise EngineUnreachable("gone")

    line = Line(answers)
    assert not line.is_open
    assert [line.ask(NOBODY), line.ask(NOBODY)] == [1, 2]
    assert line.is_open
    with pytest.raises(EngineUnreachable):
        line.ask(NOBODY)
    assert not line.is_open
    assert line.ask(NOBODY) == 1
    assert len(opened) == 2


def test_a_line_with_a_pause_is_not_tried_again_at_once() -> None:
    tried = []

    def answers(host: Host) -> Iterator[int]:
        tried.append(host)
        raise EngineUnreachable("no")
        yield 1

    line = Line(answers, pause=3600)
    for _ in range(3):
        with pytest.raises(EngineUnreachable, match="no"):
            line.ask(NOBODY)
    assert len(tried) == 1


def test_a_line_that_waits_takes_no_other_question() -> None:
    def answers(host: Host) -> Iterator[str]:
        with pytest.raises(EngineUnreachable, match="did not answer in time"):
            line.ask(host)
        yield "late"

    line = Line(answers)
    assert line.ask(NOBODY) == "late"
