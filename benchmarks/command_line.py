"""What starting the program costs, against the bare interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from benchmarks.clock import median, row

RUNS = 15
COMMANDS = (
    ("--version",),
    ("--help",),
    ("ls",),
    ("status", "none"),
    ("create", "--help"),
)


def measure() -> None:
    print(f"Whole processes, median of {RUNS}; the last column is against python -c pass")
    with tempfile.TemporaryDirectory() as home:
        env = {**os.environ, "HOME": home}

        def run(*words: str) -> None:
            null = subprocess.DEVNULL
            subprocess.run([sys.executable, *words], stdout=null, stderr=null, env=env, check=False)

        bare = median(lambda: run("-c", "pass"), RUNS)
        row("python -c pass", bare, bare)
        for words in COMMANDS:
            took = median(lambda words=words: run("-m", "machine", *words), RUNS)  # type: ignore[misc]
            row(" ".join(("machine", *words)), took, bare)
