"""RESULTS.md and steps.svg, all of them from the figures of one run."""

from __future__ import annotations

import datetime
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import machine
from benchmarks.clock import Row
from benchmarks.creates import PROGRAM, Created
from benchmarks.machines import AT_ONCE, FROM_LAYER, LOGINS, REMOVALS, WARM, Measured
from benchmarks.plot import Bar, draw
from machine.workflows.create import STEPS

HERE = Path(__file__).parent
CHECKS, MADE, BOOT = "program and checks", "VM made", "boot to a login"
INSTALLED, STARTED, ANSWER = "engine installed", "engine started", "engine's answer"
SETTLED = "first-boot disk removed"
PARTS: Mapping[str, tuple[str, ...]] = {
    CHECKS: (PROGRAM, "preflight", "image", "bundle", "layer", "keys"),
    MADE: ("vm",),
    BOOT: ("boot",),
    INSTALLED: ("system", "install"),
    STARTED: ("configure", "start"),
    ANSWER: ("verify",),
    SETTLED: ("settle",),
}
COLOURS = dict(
    zip(
        PARTS,
        ("#999999", "#0072b2", "#56b4e9", "#e69f00", "#d55e00", "#009e73", "#cc79a7"),
        strict=True,
    )
)
"""Okabe's and Ito's, which are told apart by those who see colours otherwise, too."""


def write(rows: Sequence[Row], found: Measured) -> None:
    (HERE / "steps.svg").write_text(_plot(found))
    (HERE / "RESULTS.md").write_text(_text([*rows, *found.rows], len(rows), found))
    print("\nWritten: benchmarks/RESULTS.md, benchmarks/steps.svg")


def _plot(found: Measured) -> str:
    cold, layered = found.cold_by_hand, found.layered_by_hand
    warm = _bar("warm", found.warm)
    bars = [
        _bar("cold, --no-layers", found.cold),
        Bar("by hand", {BOOT: cold.login, INSTALLED: cold.engine - cold.login}),
        _bar("from the layer", found.layered),
        Bar("by hand", {BOOT: layered.login, ANSWER: layered.engine - layered.login}),
        warm,
    ]
    return draw("machine create, seconds per step", [bars, [warm]], COLOURS)


def _bar(label: str, created: Created) -> Bar:
    steps = created.steps
    return Bar(label, {part: sum(steps.get(name, 0.0) for name in PARTS[part]) for part in PARTS})


def _text(rows: Sequence[Row], of_command_line: int, found: Measured) -> str:
    emulated = found.size.kind != "kvm"
    how = "emulation: KVM is not there, or runs no code" if emulated else "KVM"
    sections = [
        "# Results of `make bench`",
        "Written by `make bench`, and all of it measured in one run on one computer. Ratios are what"
        " can be compared between computers; the seconds belong to this one.",
        _table(("", ""), _computer(how, found)),
        _missed(rows),
        "## Figures",
        _rows(rows[of_command_line:]),
        _rows(rows[:of_command_line]),
        "## Where the time goes",
        "![Seconds per step of a cold create, one from the layer and a warm one](steps.svg)",
        _steps(found),
        *_account(found),
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
    text = f"{len(judged) - len(missed)} of {len(judged)} targets are reached"
    return f"{text}. Missed: {'; '.join(missed)}." if missed else f"{text}."


def _rows(rows: Iterable[Row]) -> str:
    words = {None: "", True: "reached", False: "**missed**"}
    return _table(
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
        return _time(row.amount)
    return f"{row.amount:.{1 if row.amount < 10 else 0}f} {row.unit}"


def _time(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _steps(found: Measured) -> str:
    creates = (found.cold, found.layered, found.warm)
    titles = {PROGRAM: "The program's own start and end"}
    titles |= {name: title for name, title, _ in STEPS}
    shown = [
        (titles[name], *(_time(each.steps[name]) if name in each.steps else "" for each in creates))
        for name in titles
        if any(name in each.steps for each in creates)
    ]
    whole = ("**in all**", *(_time(each.whole) for each in creates))
    return _table(("step", "cold", "from the layer", "warm"), [*shown, whole])


def _account(found: Measured) -> Iterable[str]:
    cold, layered, warm = found.cold, found.layered, found.warm
    hand, layered_hand, guest = found.cold_by_hand, found.layered_by_hand, found.guest
    answer = layered.reached["verify"]
    yield (
        f"**Cold** takes {_time(cold.whole)}, and {_time(hand.engine)} by hand: the guest's boot and"
        " dpkg's work inside the guest are in both, and are the limit of every way that installs on"
        f" the machine itself. Most of it: {_largest(cold)}."
    )
    yield (
        f"**From the layer** the engine answers after {_time(answer)}, and after"
        f" {_time(layered_hand.engine)} by hand. That is the guest's own boot, the limit of every way"
        f" that boots; what the tool does besides is {_time(answer - _booting(layered))}, its program,"
        " checks, keys, volumes and domain. The guest's kernel and initramfs take"
        f" {_time(guest.userspace)} (QEMU and its firmware come before, and are not on its clock),"
        f" systemd has sshd up {_time(guest.ssh - guest.userspace)} later,"
        f" the engine is up {_time(guest.engine)} after the kernel's beginning, and the boot has"
        f" ended at {_time(guest.finished)}. The slowest units (several at a time): "
        + ", ".join(f"{unit} {took}" for unit, took in guest.slowest)
        + "."
    )
    yield (
        f"**Warm** the engine answers after {_time(warm.reached['verify'])}: {_largest(warm)}. No"
        f" kernel boots and no service starts. Making the VM reads {found.memory_bytes / 1e6:.0f} MB"
        " of saved memory, which every machine needs once and whose digest is compared on the way;"
        " the login waits for the guest to take on its identity, and the answer for the engine, which"
        " had stopped before its certificate, to go on from there. The limit is reading that memory,"
        " and what the guest has to run once more."
        + (
            ""
            if found.size.kind == "kvm"
            else " Emulated code is not part of the memory: it is translated anew."
        )
    )


def _booting(created: Created) -> float:
    return created.steps["boot"] + created.steps["verify"]


def _largest(created: Created) -> str:
    """The steps that make up nine tenths of it, the longest first."""
    parts = _bar("", created).parts
    named, rest = [], created.whole * 0.1
    left = created.whole
    for part in sorted(parts, key=lambda each: -parts[each]):
        named.append(f"{part} {_time(parts[part])}")
        left -= parts[part]
        if left <= rest:
            break
    return ", ".join(named)


def _how(found: Measured) -> str:
    return f"""\
- *By hand* is QEMU started with the same kernel, initramfs, processors, memory and disks (their cache
  off, as a machine's are), on the machines' own bridge, with a first-boot disk that holds the same
  files; asked by the ssh program until it takes a login, then by a loop with a client certificate
  until the engine answers. A cold one has its engine installed by dpkg over that login in between.
- A create's time to a login or an answer is that from the start of its process to the end of the
  step; cold and first creates, and several at once, are whole processes.
- The layers are in a folder of their own that begins empty. `--no-layers` is measured with its image
  in the pool already, and the create that makes the engine layer brings its disk there.
- A warm login is compared with the quicker of the two bare boots, a warm answer with the bare boot
  from the layer's disk.
- The disk of a new machine is what its own volumes take (overlay, first-boot disk, console log) when
  the step that makes the VM has ended: the guest runs by then, and has not mounted its disk.
- {FROM_LAYER} runs from the layer (the quicker one), {WARM} warm, {LOGINS} logins, {REMOVALS} \
removals: medians. All
  else once. {AT_ONCE} at once share {os.cpu_count()} processors, each machine has {found.size.cpus}."""


def _not_measured(*, emulated: bool) -> str:
    other = (
        "- KVM, which does not work on this computer. Where it does, `make bench` uses it, and nothing"
        " of the command changes."
        if emulated
        else "- Emulation: KVM works on this computer, and is used."
    )
    return f"""\
{other}
- Other computers and numbers of processors; libvirt's session mode and other hosts' libvirt.
- Debian 12, images of others (cloud-init) and engines from upstream's archive.
- Building images and bundles, and downloads: `make setup` does them before."""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
