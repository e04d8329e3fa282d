"""RESULTS.md and steps.svg, all of them from the figures of one run."""

from __future__ import annotations

import datetime
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

import machine
from benchmarks import account
from benchmarks.clock import Row
from benchmarks.machines import AT_ONCE, FROM_LAYER, WARM, Measured
from benchmarks.running import LOGINS, REMOVALS
from benchmarks.text import items, paragraph, table, time

HERE = Path(__file__).parent


def write(rows: Sequence[Row], found: Measured) -> None:
    (HERE / "steps.svg").write_text(account.plot(found))
    (HERE / "RESULTS.md").write_text(_text([*rows, *found.rows], len(rows), found))
    print("\nWritten: benchmarks/RESULTS.md, benchmarks/steps.svg")


def _text(rows: Sequence[Row], of_command_line: int, found: Measured) -> str:
    emulated = found.size.kind != "kvm"
    how = "emulation: KVM is not there, or runs no code" if emulated else "KVM"
    sections = [
        "# Results of `make bench`",
        paragraph(
            "Written by `make bench`, and all of it measured in one run on one computer. Ratios are",
            "what can be compared between computers; the seconds belong to this one.",
        ),
        table(("", ""), _computer(how, found)),
        _missed(rows),
        "## Figures",
        _rows(rows[of_command_line:]),
        _rows(rows[:of_command_line]),
        "## Where the time goes",
        "![Seconds per step of a cold create, one from the layer and a warm one](steps.svg)",
        account.steps(found),
        *account.words(found),
        "## How it was measured",
        _how(found),
        "## What was not measured",
        _not_measured(emulated=emulated),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _computer(how: str, found: Measured) -> Iterable[tuple[str, str]]:
    cpu = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    memory = re.search(r"^MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text(), re.M)
    yield "date", datetime.datetime.now(datetime.UTC).date().isoformat()
    yield "processors", f"{os.cpu_count()} ({cpu[1] if cpu else platform.machine()})"
    yield "memory", f"{int(memory[1]) / (1 << 20):.0f} GiB" if memory else ""
    yield "kernel", platform.release()
    yield "machines run by", how
    yield (
        "a machine",
        (
            f"{found.size.cpus} CPUs, {found.size.memory_mib} MiB, {found.size.disk_gib} GiB; "
            f"Linux {found.kernel}, {found.engine}"
        ),
    )
    yield "machine", machine.__version__
    yield "Python", platform.python_version()
    yield "QEMU", _version("qemu-system-x86_64", "--version")
    yield "libvirt", _version("virsh", "--version")


def _version(*words: str) -> str:
    shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    first = re.search(r"\d+(\.\d+)+", shown)
    return first[0] if first else shown.strip()


def _missed(rows: Iterable[Row]) -> str:
    judged = [row for row in rows if row.reached is not None]
    missed = [row.name for row in judged if not row.reached]
    text = f"{len(judged) - len(missed)} of {len(judged)} targets are reached."
    return paragraph(text, f"Missed: {'; '.join(missed)}." if missed else "")


def _rows(rows: Iterable[Row]) -> str:
    words = {None: "", True: "reached", False: "**missed**"}
    return table(
        ("what", "figure", "ratio", "target", ""),
        (
            (
                row.name,
                _amount(row),
                "" if row.ratio is None else f"{row.ratio:.2f}",
                "" if row.target is None else f"≤ {row.target:g}",
                words[row.reached],
            )
            for row in rows
        ),
    )


def _amount(row: Row) -> str:
    if row.unit == "s":
        return time(row.amount)
    return f"{row.amount:.{1 if row.amount < 10 else 0}f} {row.unit}"


def _how(found: Measured) -> str:
    return items(
        "*By hand*, or bare, is QEMU started with the same kernel, initramfs, processors, memory and"
        " disks (their cache off, as a machine's are), on the machines' own bridge, with a first-boot"
        " disk that holds the same files. The ssh program asks until it takes a login, then a loop"
        " with a client certificate until the engine answers. A cold one has its engine installed"
        " by dpkg over that login in between.",
        "A create's time to a login or an answer is that from the start of its process to the end of"
        " the step. Cold and first creates, and several at once, are whole processes.",
        "The layers are in a folder of their own that begins empty. `--no-layers` is measured with"
        " its image in the pool already; the create that makes the engine layer brings its disk there.",
        "A warm login is compared with the quicker of the two bare boots, a warm answer with the bare"
        " boot of the layer.",
        "The disk of a new machine is what its own volumes take (overlay, first-boot disk, console"
        " log) when the step that makes the VM has ended: the guest has just begun to run.",
        f"{FROM_LAYER} runs from the layer (the quicker one counts), {WARM} warm, {LOGINS} logins and"
        f" {REMOVALS} removals (their medians), all else once. The {AT_ONCE} at once have"
        f" {os.cpu_count()} processors here, and {found.size.cpus} each of their own.",
    )


def _not_measured(*, emulated: bool) -> str:
    return items(
        "KVM, which does not work on this computer. Where it does, `make bench` uses it, and nothing"
        " of the command changes."
        if emulated
        else "Emulation: KVM works on this computer, and is used.",
        "Other computers and numbers of processors; libvirt's session mode, and libvirt elsewhere.",
        "Debian 12, images of others (cloud-init) and engines from upstream's archive.",
        "Building images and bundles, and downloads: `make setup` does them before.",
    )
