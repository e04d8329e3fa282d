"""Ratios within one run, on this computer: `make bench`. Prints figures and fails on none."""

from __future__ import annotations

import os
import platform

from benchmarks import command_line, machines


def main() -> None:
    print(f"Python {platform.python_version()}, {os.cpu_count()} processors\n")
    command_line.measure()
    if os.geteuid() == 0:
        machines.measure()
    else:
        print("\nMachines are measured in namespaces, which needs root: sudo make bench")


main()
