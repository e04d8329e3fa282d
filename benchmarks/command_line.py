"""What starting the program costs, against the bare interpreter, and what a listing costs.

The machines are those of the third-party driver of the tests, whose hosts are folders: nothing of
a provider is in the figures, and a look for its entry point is, which our own drivers do without.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from benchmarks.clock import Row, medians, row, shown
from machine.model import State
from machine.store import Store
from tests import machines

ROOT = Path(__file__).parents[1]
RUNS = 21
BARE = "python -c pass"
START_UP, LISTING, MEMORY_MIB = 6.0, 5.0, 120.0
"""Targets: times the bare interpreter, times a listing of ten, MiB."""
COUNTED = """
import resource, sys
starts = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "os.system"}
processes = ["this one"]
sys.addaudithook(lambda event, args: processes.append(event) if event in starts else None)
from machine.__main__ import run
code = run(sys.argv[1:])
kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(len(processes), kib / 1024, file=sys.stderr)
sys.exit(code)
"""


def measure() -> list[Row]:
    """Prints the rows, and answers them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        env = _environment(folder)
        print(f"Whole processes, median of {RUNS}; the last column is against {BARE}")
        rows = _start_up(folder, env)
        print("\nListings; the last column is against ten stopped machines")
        return [*rows, *_listings(folder, env), *_running(folder, env)]


def _environment(folder: Path) -> dict[str, str]:
    """An empty home, the driver, and compiled modules, as an installed program has them."""
    machines.install(folder / "site")
    env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    path = os.pathsep.join((str(ROOT), str(folder / "site")))
    return {
        **env,
        "HOME": str(folder),
        "PYTHONPATH": path,
        "PYTHONPYCACHEPREFIX": str(folder / "pycache"),
    }


def _run(words: Sequence[str], env: Mapping[str, str]) -> None:
    null = subprocess.DEVNULL
    argv = [sys.executable, *words]
    subprocess.run(argv, stdin=null, stdout=null, stderr=null, env=env, check=False)


def _machine(words: str, store: Store, env: Mapping[str, str]) -> None:
    _run(("-m", "machine", "--storage-path", str(store.root), *words.split()), env)


def _start_up(folder: Path, env: Mapping[str, str]) -> list[Row]:
    empty, ten = Store(folder / "empty"), Store(folder / "ten")
    with machines.answering(ten, 1) as ports:
        machines.running(ten, "folder", "worker", ports * 10)
        works = {
            BARE: partial(_run, ("-c", "pass"), env),
            "machine --version": partial(_run, ("-m", "machine", "--version"), env),
            "machine --help": partial(_machine, "--help", empty, env),
            "machine create --help": partial(_machine, "create --help", empty, env),
            "machine ls, of nothing": partial(_machine, "ls", empty, env),
            "machine status, of 10": partial(_machine, "status worker1", ten, env),
            "machine url, of 10": partial(_machine, "url worker1", ten, env),
            "machine env, of 10, the engine asked": partial(_machine, "env worker1", ten, env),
            "machine ls, of 10, no engine asked": partial(
                _machine, "ls -q --filter state=running", ten, env
            ),
            "machine ls, of 10, every engine asked": partial(_machine, "ls", ten, env),
        }
        for work in works.values():
            work()  # compiles the modules
        took = medians(works, RUNS)
    return [
        row(name, each, took[BARE], START_UP if "of 10" in name else None)
        for name, each in took.items()
    ]


def _listings(folder: Path, env: Mapping[str, str]) -> list[Row]:
    works = {}
    for count in (10, 500):
        store = Store(folder / f"stopped{count}")
        for number in range(count):
            machines.made(f"worker{number}", "folder", State.STOPPED, store=store)
        works[f"machine ls, of {count} stopped"] = partial(_machine, "ls", store, env)
    took = medians(works, RUNS)
    few, many = took
    return [row(few, took[few], took[few]), row(many, took[many], took[few], LISTING)]


def _running(folder: Path, env: Mapping[str, str]) -> list[Row]:
    """One listing of a hundred machines whose engines all answer over TLS."""
    store = Store(folder / "hundred")
    with machines.answering(store, 100) as ports:
        machines.running(store, "folder", "worker", ports)
        took = medians({"": partial(_machine, "ls", store, env)}, 3)[""]
        ran = subprocess.run(
            [sys.executable, "-c", COUNTED, "--storage-path", str(store.root), "ls"],
            capture_output=True,
            text=True,
            env=env,
            check=True,
        )
    assert ran.stdout.count("v26.1.5") == 100, ran.stdout
    processes, mib = ran.stderr.split()
    name = "machine ls, of 100 running"
    return [
        row(name, took),
        shown(Row(f"{name}: processes", float(processes), "in all", target=1)),
        shown(Row(f"{name}: peak memory", float(mib), "MiB", target=MEMORY_MIB)),
    ]
