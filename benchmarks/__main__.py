"""Ratios within one run, on this computer: `make bench`. Prints figures and fails on none; as root
it measures machines too, and writes RESULTS.md and steps.svg beside this file."""

from __future__ import annotations

import os
import platform

from benchmarks import command_line, machines, results


def main() -> None:
    print(f"Python {platform.python_version()}, {os.cpu_count()} processors\n")
    rows = command_line.measure()
    if os.geteuid() == 0:
        results.write(rows, machines.measure())
    else:
        print("\nMachines are measured in namespaces, which needs root: sudo make bench")


main()
