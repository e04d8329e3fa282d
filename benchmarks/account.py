"""Where the time of a create goes, as a plot, a table and words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from benchmarks.creates import PROGRAM, Created
from benchmarks.machines import Measured
from benchmarks.plot import Bar, draw
from benchmarks.text import paragraph, table, time
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
    inside = layered.steps["boot"] + layered.steps["verify"]
    yield paragraph(
        f"**Cold** takes {time(cold.whole)}, and {time(hand.engine)} by hand: the guest's boot and",
        "dpkg's work inside the guest are in both, and are the limit of every way that installs on",
        f"the machine itself. Most of it: {_largest(cold)}.",
    )
    yield paragraph(
        f"**From the layer** the engine answers after {time(answer)}, and after",
        f"{time(layered_hand.engine)} by hand, which is the guest's own boot and the limit of every",
        f"way that boots. Of a create, boot and answer are {time(inside)}; what the tool does before,",
        f"its program, checks, keys, volumes and domain, is {time(answer - inside)}. The guest's",
        f"kernel and initramfs take {time(guest.userspace)} (QEMU and its firmware come before, and",
        "are not on the guest's clock), systemd has sshd up",
        f"{time(guest.ssh - guest.userspace)} later, the engine is up {time(guest.engine)} after the",
        f"kernel's beginning, and the boot has ended at {time(guest.finished)}. The units that took",
        "longest, several of them at a time:",
        ", ".join(f"{unit} {took}" for unit, took in guest.slowest) + ".",
    )
    yield paragraph(
        f"**Warm** the engine answers after {time(warm.reached['verify'])}: {_largest(warm)}. No",
        "kernel boots, and sshd and the engine were started before the memory was saved. Making the",
        f"VM reads {found.memory_bytes / 1e6:.0f} MB of it, whose digest is compared on the way; the",
        "login waits for the guest to take on its identity, and the answer for the engine to go on",
        "from where it had stopped, before its certificate. The limit is reading that memory, and",
        "what the guest has to run after it.",
        "" if found.size.kind == "kvm" else "Emulated code is translated anew: it is not memory.",
    )


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
