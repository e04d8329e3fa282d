"""`machine top`: under Textual's pilot, on a real terminal, and over real hosts and engines."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pexpect
import pytest
from textual.pilot import Pilot

from machine.host import Host
from machine.model import State
from machine.store import Store
from machine.workflows.watch import Watch
from tests import pictures
from tests.hosts import HostBed
from tests.integration.screens import lines, top, until
from tests.integration.test_cli import machine
from tests.machines import made, running, silent

pytestmark = pytest.mark.filterwarnings("ignore:.*forkpty:DeprecationWarning")
Scene = Callable[[Pilot[None]], Awaitable[None]]
NARROW = (40, 12)
HEADS = ["NAME", "STATE", "CPU", "MEMORY", "DISK", "CONT", "SWARM", "NOTE"]


def play(scene: Scene, *, size: tuple[int, int] = (80, 24), words: str = "") -> None:
    """The scene, once the first look is over."""

    async def run() -> None:
        async with top(words=words).run_test(size=size) as pilot:
            await until(pilot, lambda text: "running" in text or "no machines" in text)
            await scene(pilot)

    asyncio.run(run())


def test_eighty_columns(host: str, stopped: str) -> None:
    async def scene(pilot: Pilot[None]) -> None:
        text = await until(pilot, lambda text: "q Quit" in text)
        rows = text.splitlines()
        assert rows[0].startswith("2 machines, 1 running")
        assert rows[1].split() == HEADS
        assert rows[2].split()[:7] == ["f1", "Running", "-", "-", "-", "-", "-"]
        assert rows[3].split() == ["s1", "Stopped", "-", "-", "-", "-", "-"]
        for key in ("SSH", "s Start", "t Stop", "k Kill", "r Remove", "l Logs", "/ Filter"):
            assert key in rows[-1]

    play(scene)


def test_forty_columns(host: str, stopped: str) -> None:
    async def scene(pilot: Pilot[None]) -> None:
        rows = (await until(pilot, lambda text: "SSH" in text)).splitlines()
        assert rows[1].split() == ["NAME", "STATE", "CPU", "CONT"]
        assert rows[2].split() == ["f1", "Running", "-", "-"]
        await pilot.press("d")
        await until(pilot, lambda text: "tcp://127.0.0.1:2376" in text)
        await pilot.press("t")
        await until(pilot, lambda text: "Shut f1 down?" in text)
        await pilot.press("n")

    play(scene, size=NARROW)


@pytest.mark.parametrize("size", [(20, 6), (1, 1)])
def test_the_smallest_do_not_break_it(host: str, size: tuple[int, int]) -> None:
    async def run() -> None:
        async with top().run_test(size=size) as pilot:
            await pilot.pause(0.5)
            await pilot.press("d", "t", "y")
            await pilot.resize_terminal(80, 24)
            await until(pilot, lambda text: "-> Stopped" in text)

    asyncio.run(run())


def test_nothing_is_stopped_without_a_yes(host: str) -> None:
    async def scene(pilot: Pilot[None]) -> None:
        for verb, answer in (("t", "n"), ("k", "escape"), ("k", "enter")):
            question = {"t": "Shut f1 down?", "k": "Power f1 off at once?"}[verb]
            await pilot.press(verb)
            await until(pilot, lambda text, question=question: question in text)  # type: ignore[misc]
            await pilot.press(answer)
            await until(pilot, lambda text: "(y/n)" not in text)
        await pilot.click("Machines", offset=(3, 1))
        await pilot.click("Machines", offset=(3, 1))
        text = await until(pilot, lambda text: "f1" in text)
        assert "logged out" not in text

    play(scene)
    assert Host.load(Store(), host).state() is State.RUNNING


@pytest.mark.parametrize("key", ["t", "k"])
def test_a_yes_stops_it(host: str, key: str) -> None:
    async def scene(pilot: Pilot[None]) -> None:
        await pilot.press(key)
        await until(pilot, lambda text: "(y/n)" in text)
        await pilot.press("y")
        text = await until(pilot, lambda text: "-> Stopped" in text)
        assert "0 running" in text

    play(scene)
    assert Host.load(Store(), host).state() is State.STOPPED


def test_what_fails_is_told(stopped: str) -> None:
    async def scene(pilot: Pilot[None]) -> None:
        await pilot.press("k", "y")
        await until(pilot, lambda text: 'Host "s1" is already stopped' in text)
        await pilot.press("enter")
        text = await until(pilot, lambda text: 'Host is not running: "s1" is Stopped' in text)
        assert "Traceback" not in text

    play(scene)


def test_removal_wants_the_name(stopped: str) -> None:
    async def scene(pilot: Pilot[None]) -> None:
        for typed in ("other", "y"):
            await pilot.press("r")
            await until(pilot, lambda text: "Type its name" in text)
            await pilot.press(*typed, "enter")
            await until(pilot, lambda text: "another name was typed" in text)
        await pilot.press("r", "escape")
        assert Store().exists(stopped)
        await pilot.press("r", *"s1", "enter")
        text = await until(pilot, lambda text: "s1 is removed" in text)
        assert "There are no machines yet" in text

    play(scene)
    assert not Store().exists(stopped)


def test_filtering(host: str, stopped: str) -> None:
    async def scene(pilot: Pilot[None]) -> None:
        await pilot.press("slash", *"stopp")
        text = await until(pilot, lambda text: "1 with 'stopp'" in text)
        assert not re.search(r"^ f1", text, re.MULTILINE)
        await pilot.press("enter", "t", "escape", "escape")  # what is left is what keys are for
        text = await until(pilot, lambda text: "with" not in text.splitlines()[0])
        assert re.search(r"^ f1", text, re.MULTILINE)

    play(scene)


def test_a_filter_from_the_command_line(host: str, stopped: str) -> None:
    async def scene(pilot: Pilot[None]) -> None:
        assert "1 with 's1'" in "\n".join(lines(pilot.app))  # type: ignore[arg-type]

    play(scene, words="s1")


def test_a_key_that_comes_while_it_is_taken_apart_does_no_harm(host: str, stopped: str) -> None:
    async def scene(pilot: Pilot[None]) -> None:
        await pilot.app.query_one("#details").remove()
        await pilot.press("down")
        await pilot.pause()

    play(scene)


def test_other_processes_are_watched(host: str, folder_driver: str) -> None:
    """A machine that is made, its create at work and cut off, and its end."""

    async def scene(pilot: Pilot[None]) -> None:
        new = made("new", folder_driver, State.STARTING)
        await until(pilot, lambda text: "new is new: Starting" in text)
        journal = new.block.journal
        journal.finished, journal.step, journal.done = False, "boot", ["preflight"]
        new.save()
        await until(pilot, lambda text: "create cu" in text)  # as much as there is room for
        with new.store.lock("new"):
            text = await until(pilot, lambda text: "Creating" in text)
            assert "create: b" in text
            journal.step = "verify"
            new.save()
            await until(pilot, lambda text: "new its create is at: verify" in text)
        journal.finished, journal.step = True, ""
        new.save()
        await until(pilot, lambda text: "new its create has ended" in text)

    play(scene)


def test_leaving_what_is_at_work_has_to_be_confirmed(host: str) -> None:
    async def scene(pilot: Pilot[None]) -> None:
        with Store().lock(host):  # so that the work waits
            await pilot.press("t", "y")
            await until(pilot, lambda text: "stopping" in text)
            await pilot.press("q")
            await until(pilot, lambda text: "Leave what is being done as it is?" in text)
            await pilot.press("n")
        await until(pilot, lambda text: "-> Stopped" in text)
        await pilot.press("ctrl+c")
        await pilot.pause(0.1)
        assert pilot.app._exit

    play(scene)


def test_an_engine_that_hangs_costs_its_own_row(folder_driver: str, own_home: Path) -> None:
    store = Store()
    with silent(1) as ports:
        running(store, folder_driver, "w", ports)
        made("s1", folder_driver, State.STOPPED)
        seen = Watch(store, patience=0.5).look(["s1", "w1", "nosuch"])
    assert [(each.name, each.row.state) for each in seen] == [
        ("s1", State.STOPPED),
        ("w1", State.RUNNING),
        ("nosuch", State.ERROR),
    ]
    assert [each.row.error for each in seen][:2] == ["", "its engine did not answer in time"]


def test_once_is_a_table_without_textual(host: str, stopped: str) -> None:
    ran = machine("top", "--once", "--filter", "s1")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[0].split() == HEADS
    assert ran.stdout.splitlines()[1].split() == ["s1", "Stopped", *("-" * 5)]
    data = json.loads(machine("top", "--output", "json").stdout)["data"]
    assert [(each["name"], each["state"]) for each in data] == [
        ("f1", "Running"),
        ("s1", "Stopped"),
    ]
    assert data[0]["error"] == "The machine's client certificate cannot be used"
    code = (
        "import sys\nfrom machine.__main__ import run\nrun(['top', '--once'])\n"
        "assert 'textual' not in sys.modules and 'rich' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)


def test_it_needs_a_terminal() -> None:
    ran = machine("top")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "machine top needs a terminal" in ran.stderr
    assert "machine top --once" in ran.stderr


def _spawn(*argv: str, **env: str) -> pexpect.spawn[str]:
    unset = ("CI", "NO_COLOR", "COLUMNS", "LINES")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    environment.update({"TERM": "xterm-256color", "LC_ALL": "C.UTF-8", **env})
    return pexpect.spawn(
        argv[0], list(argv[1:]), env=environment, encoding="utf-8", dimensions=(24, 80), timeout=60
    )


def test_without_textual_it_says_how_to_get_it(tmp_path: Path) -> None:
    """A package of that name that is none."""
    (tmp_path / "textual").mkdir()
    (tmp_path / "textual" / "__init__.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'textual'\", name='textual')"
    )
    child = _spawn(sys.executable, "-m", "machine", "top", PYTHONPATH=str(tmp_path))
    child.expect(pexpect.EOF)
    child.close()
    assert "machine top needs the Python package textual" in (child.before or "")
    assert "pip install 'machine-vm[tui]'" in (child.before or "")
    assert child.exitstatus == 3


def test_a_dumb_terminal_is_told(host: str) -> None:
    child = _spawn(sys.executable, "-m", "machine", "top", TERM="dumb")
    child.expect("cannot move on this terminal")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 2


def test_the_pictures_in_the_documentation_are_of_this_screen() -> None:
    for file, drawn in pictures.drawn().items():
        kept = (pictures.FOLDER / file).read_text()
        assert pictures.words(kept) == pictures.words(drawn), "python -m tests.pictures"


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostBed]:
    with HostBed(tmp_path_factory.mktemp("top") / "watched", "m1", "w1") as bed:
        creates = [
            subprocess.Popen(
                [*bed.inside(), *bed.tool(), "create", *host.options, name],
                env=bed.environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for name, host in bed.hosts.items()
        ]
        assert [each.wait() for each in creates] == [0, 0]
        yield bed


def test_real_hosts_once(bed: HostBed) -> None:
    rows = bed.machine("top", "--once").stdout.splitlines()
    assert [row.split() for row in rows[1:]] == [
        ["m1", "Running", "-", "-", "-", "0/0", "-"],
        ["w1", "Running", "-", "-", "-", "0/0", "-"],
    ]
    assert bed.machine("ssh", "m1", "sudo docker swarm init").returncode == 0
    told = json.loads(bed.machine("top", "--inside", "--output", "json").stdout)["data"]
    assert [(each["name"], each["swarm"]) for each in told] == [("m1", "leader"), ("w1", "")]
    for each in told:
        assert each["cpu"] >= 0
        assert 0 < each["memory"]["used"] < each["memory"]["total"]
        assert 0 < each["disk"]["used"] <= each["disk"]["total"]
        assert each["engine_version"].startswith("26.1")


def test_enter_is_a_terminal_on_the_machine(bed: HostBed) -> None:
    """The screen is there again when it is left."""
    child = _spawn(*bed.inside(), *bed.tool(), "top", **bed.environment)
    child.expect("SSH")
    child.expect("Running")
    child.send("\r")
    child.expect(r"machine@m1:")
    child.sendline("echo logged-$((40+2)); exit 3")
    child.expect("logged-42")
    child.expect("logged out")
    child.send("q")
    child.expect(pexpect.EOF)
    assert "\x1b[?1049l" in (child.before or "")  # the terminal is as it was: xterm's other screen
    child.close()
    assert child.exitstatus == 0


def test_real_hosts_on_the_screen(bed: HostBed) -> None:
    """What happens on engines and to a host shows, over connections that are kept."""
    words = [bed.tool()[0], "-m", "tests.integration.watched_hosts"]
    with subprocess.Popen(
        [*bed.inside(), *words],
        env=bed.environment,
        cwd=bed.root,
        stdout=subprocess.PIPE,
        text=True,
    ) as scene:
        assert scene.stdout
        assert scene.stdout.readline() == "cut w1 off\n"
        bed.hosts["w1"].cut_off()
        said = scene.stdout.read()
    assert scene.returncode == 0
    assert said == "done\n"
