"""One `machine create`, and when each of its steps had ended."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from machine.workflows.create import STEPS
from tests.e2e.testbed import SystemBed

PROGRAM = "program"
"""A step of its own: the program's start and end, and what is between the steps."""


@dataclass(frozen=True, slots=True)
class Created:
    whole: float  # seconds of the process
    reached: Mapping[str, float]  # seconds from the process's start to a step's end
    steps: Mapping[str, float]  # seconds of each step


def create(bed: SystemBed, *words: str, at: Mapping[str, Callable[[], None]] = {}) -> Created:
    """``at`` is called when a step has ended."""
    reached: dict[str, float] = {}
    steps: dict[str, float] = {}
    names = {name for name, _, _ in STEPS}
    with (bed.folder / "create.log").open("w+") as log:
        started = time.perf_counter()
        argv = ("create", "-d", "libvirt", "--output", "json", *words)
        with bed.popen(*argv, stderr=log) as process:
            assert process.stdout
            for line in process.stdout:
                now = time.perf_counter() - started
                event = json.loads(line)
                if event["kind"] != "StepEnded" or event["data"]["step"] not in names:
                    continue
                step = event["data"]["step"]
                reached[step], steps[step] = now, event["data"]["seconds"]
                at.get(step, lambda: None)()
        whole = time.perf_counter() - started
        log.seek(0)
        assert process.returncode == 0, log.read()
    return Created(whole, reached, {PROGRAM: whole - sum(steps.values()), **steps})
