"""Where the time of a create goes, as a plot, a table and words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from benchmarks.creates import PROGRAM, Created
from benchmarks.machines import Measured
from benchmarks.plot import Bar, draw
from benchmarks.text import table, time
from machine.workflows.create import STEPS

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


def plot(found: Measured) -> str:
    cold, layered = found.cold.by_hand, found.layered.by_hand
    warm = _bar("warm", found.warm.created)
    bars = [
        _bar("cold, --no-layers", found.cold.created),
        Bar("by hand", {BOOT: cold.login, INSTALLED: cold.engine - cold.login}),
        _bar("from the layer", found.layered.created),
        Bar("by hand", {BOOT: layered.login, ANSWER: layered.engine - layered.login}),
        warm,
    ]
    return draw("machine create, seconds per step", [bars, [warm]], COLOURS)


def _bar(label: str, created: Created) -> Bar:
    steps = created.steps
    return Bar(label, {part: sum(steps.get(name, 0.0) for name in PARTS[part]) for part in PARTS})


def steps(found: Measured) -> str:
    creates = [each.created for each in (found.cold, found.layered, found.warm)]
    titles = {PROGRAM: "The program's own start and end"}
    titles |= {name: title for name, title, _ in STEPS}
    shown = [
        (titles[name], *(time(each.steps[name]) if name in each.steps else "" for each in creates))
        for name in titles
        if any(name in each.steps for each in creates)
    ]
    whole = ("**in all**", *(time(each.whole) for each in creates))
    return table(("step", "cold", "from the layer", "warm"), [*shown, whole])


def words(found: Measured) -> Iterable[str]:
    cold, layered, warm = (each.created for each in (found.cold, found.layered, found.warm))
    hand, layered_hand, guest = found.cold.by_hand, found.layered.by_hand, found.guest
    answer = layered.reached["verify"]
    yield (
        f"**Cold** takes {time(cold.whole)}, and {time(hand.engine)} by hand: the guest's boot and"
        " dpkg's work inside the guest are in both, and are the limit of every way that installs on"
        f" the machine itself. Most of it: {_largest(cold)}."
    )
    yield (
        f"**From the layer** the engine answers after {time(answer)}, and after"
        f" {time(layered_hand.engine)} by hand, which is the guest's own boot and the limit of every"
        f" way that boots. Of a create, boot and answer are {time(_booting(layered))}, and what the tool"
        f" does before, its program, checks, keys, volumes and domain, is"
        f" {time(answer - _booting(layered))}. The guest's kernel and initramfs take"
        f" {time(guest.userspace)} (QEMU and its firmware come before, and are not on its clock),"
        f" systemd has sshd up {time(guest.ssh - guest.userspace)} later,"
        f" the engine is up {time(guest.engine)} after the kernel's beginning, and the boot has"
        f" ended at {time(guest.finished)}. The slowest units (several at a time): "
        + ", ".join(f"{unit} {took}" for unit, took in guest.slowest)
        + "."
    )
    yield (
        f"**Warm** the engine answers after {time(warm.reached['verify'])}: {_largest(warm)}. No"
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
        named.append(f"{part} {time(parts[part])}")
        left -= parts[part]
        if left <= rest:
            break
    return ", ".join(named)
