"""Ratios within one run, on this computer: `make bench`. Prints figures and fails on none."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time

RUNS = 15


def seconds(*words: str, env: dict[str, str]) -> float:
    """The median of whole processes."""
    took = []
    for _ in range(RUNS):
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=env,
            check=False,
        )
        took.append(time.perf_counter() - started)
    return statistics.median(took)


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        env = {**os.environ, "HOME": home}
        bare = seconds("-c", "pass", env=env)
        print(f"Python {platform.python_version()}, {os.cpu_count()} processors, {RUNS} runs each")
        print(f"python -c pass      {bare * 1000:6.0f} ms   1.0")
        for words in (
            ("--version",),
            ("--help",),
            ("ls",),
            ("status", "none"),
            ("create", "--help"),
        ):
            took = seconds("-m", "machine", *words, env=env)
            shown = " ".join(("machine", *words))
            print(f"{shown:<19} {took * 1000:6.0f} ms {took / bare:5.1f}")


main()
