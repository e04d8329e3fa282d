"""Limits that are enforced, and not only set: a container does more than it may, and is watched."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from machine.model import Verdict
from machine.runtime.docker.check.lesson import PID, Lesson, numbers, sections

MIB: Final = 1 << 20
MEMORY_MIB: Final = 32
EATEN_MIB: Final = 96
"""What a process in the container asks for, at once; a host that does not limit it has that much."""
PERIOD_US: Final = 100_000
QUOTA_US: Final = 5_000
"""Little, so that a container gets as much on a busy host, too, and is then held back."""
SECONDS: Final = 3
"""How long the processor's use is measured."""
TOLERANCE: Final = 2
"""Of a share measured over SECONDS: the kernel looks at its ticks, and by slices of 5 ms."""

_COMMON: Final = """
group() {
    if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
        echo "/sys/fs/cgroup$(sed -n 's/^0:://p' "/proc/$pid/cgroup")"
    else
        echo "/sys/fs/cgroup/$1$(sed -n "s/^[0-9]*:\\(.*,\\)*$1\\(,.*\\)*://p" "/proc/$pid/cgroup")"
    fi
}
show() {
    cd "$1"
    for file in $2; do
        if [ -f "$file" ]; then echo "== $3 $file"; cat "$file"; fi
    done
}
task() { echo "$1" > "/proc/$pid/root/tasks"; }
"""

ASK_MEMORY: Final = f"""{_COMMON}
memory=$(group memory)
echo "== group"
echo "$memory"
kept="memory.max memory.events memory.peak memory.limit_in_bytes memory.oom_control
    memory.failcnt memory.max_usage_in_bytes"
show "$memory" "$kept" before
task 'dd if=/dev/zero of=/dev/null bs={EATEN_MIB * MIB} count=1 2>/dev/null; echo $? >/eaten'
tries=0
while [ ! -s "/proc/$pid/root/eaten" ] && [ $tries -lt 600 ]; do
    sleep 0.1
    tries=$((tries + 1))
done
show "$memory" "$kept" after
echo "== eaten"
cat "/proc/$pid/root/eaten"
"""
ASK_CPU: Final = f"""{_COMMON}
# "cpu" is a link to "cpu,cpuacct" where those are together.
cpu=$(group cpu)
account=$(group cpuacct)
loops=$(grep -c ^processor /proc/cpuinfo || echo 1)  # one alone gets too little where much runs
[ "$loops" -le 8 ] || loops=8
while [ "$loops" -gt 0 ]; do
    task 'while :; do :; done & loops="$loops $!"'
    loops=$((loops - 1))
done
sleep 1
for when in before after; do
    echo "== $when uptime"
    cat /proc/uptime
    show "$cpu" "cpu.max cpu.stat cpu.cfs_quota_us cpu.cfs_period_us" $when
    show "$account" "cpuacct.usage" $when
    if [ $when = before ]; then sleep {SECONDS}; fi
done
task 'kill $loops'
"""
"""Both need $pid of a container that reads its tasks. Control groups are of version 2, or of 1."""

MEMORY: Final = Lesson(
    "memory limit",
    "A control group counts the memory of all its processes. At its limit the kernel takes back what "
    "it can, and then ends a process of the group (OOM: out of memory), and no other one. "
    f"Here a container that may have {MEMORY_MIB} MiB asks for {EATEN_MIB}.",
    (
        PID,
        "group=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/$pid/cgroup)   # cgroup v2",
        "cat $group/memory.max $group/memory.peak $group/memory.events",
        "sudo docker inspect -f '{{.State.OOMKilled}}' CONTAINER",
    ),
)
CPU: Final = Lesson(
    "CPU limit",
    "In every period a control group may use so much time of the processors, and waits for the next "
    "period when it is used up: it is throttled. Here a container that may use "
    f"{QUOTA_US * 100 // PERIOD_US} % of one processor runs endless loops.",
    (
        PID,
        "group=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/$pid/cgroup)   # cgroup v2",
        "cat $group/cpu.max $group/cpu.stat   # nr_throttled grows",
        "sudo docker stats CONTAINER",
    ),
)


def judge_memory(text: str, warnings: Sequence[str]) -> Verdict:
    """``text`` is what ASK_MEMORY printed; ``warnings`` the engine's, when the limit was set."""
    found = sections(text)
    limit = _bound(found)
    peak = found.get("after memory.peak", found.get("after memory.max_usage_in_bytes", ""))
    killed = _kills(found, "after") - _kills(found, "before")
    code = found["eaten"] or "nothing"
    evidence = (
        f"group {found['group']}",
        f"limit {_mib(limit)}, most used {_mib(peak)}" if limit else "the group has no limit",
        f"oom_kill grew by {killed}; the process that asked for {EATEN_MIB} MiB ended with {code}",
        *(f"the engine said: {each}" for each in warnings),
    )
    if killed > 0 and code != "0":
        return MEMORY.ok(
            f"a process that asked for {EATEN_MIB} MiB of {_mib(limit)} was ended", *evidence
        )
    given = f"{EATEN_MIB} MiB were given to a container that may have {MEMORY_MIB}"
    text = given if code == "0" else "the kernel was not seen to enforce it"
    return MEMORY.failed(text, *evidence)


def _kills(found: Mapping[str, str], when: str) -> int:
    events = found.get(f"{when} memory.events", found.get(f"{when} memory.oom_control", ""))
    return numbers(events).get("oom_kill", 0)


def _mib(count: str) -> str:
    return f"{int(count) / MIB:.4g} MiB" if count.isdigit() else "not told"


def _bound(found: Mapping[str, str]) -> str:
    """Nothing for none: version 2 has "max" then, version 1 the most that fits (2^63, in pages)."""
    bound = found.get("after memory.max", found.get("after memory.limit_in_bytes", ""))
    return bound if bound.isdigit() and int(bound) < 1 << 62 else ""


def judge_cpu(text: str, warnings: Sequence[str]) -> Verdict:
    """``text`` is what ASK_CPU printed; ``warnings`` the engine's, when the limit was set."""
    found = sections(text)
    elapsed = _grown(found, "uptime", lambda text: float(text.split()[0]))
    share = _used(found) / elapsed if elapsed else 0.0
    throttled = int(
        _grown(found, "cpu.stat", lambda text: float(numbers(text).get("nr_throttled", 0)))
    )
    limit = _quota(found)
    allowed = QUOTA_US / PERIOD_US
    evidence = (
        limit or "the group has no quota",
        f"used {share:.0%} of a processor in {elapsed:.1f} s; nr_throttled grew by {throttled}",
        *(f"the engine said: {each}" for each in warnings),
    )
    if share > allowed * TOLERANCE:
        text = f"endless loops used {share:.0%} of a processor and may have {allowed:.0%}"
        return CPU.failed(text, *evidence)
    if not throttled:
        busy = "endless loops were not held back: is the host too busy to run them?"
        return CPU.failed(busy if limit else "nothing holds endless loops back", *evidence)
    return CPU.ok(f"endless loops were held back to {share:.0%} of a processor", *evidence)


def _used(found: Mapping[str, str]) -> float:
    """Seconds of processor time between the two looks: in µs in version 2, in ns in version 1."""
    if "after cpuacct.usage" in found:
        return _grown(found, "cpuacct.usage", float) / 1e9
    return _grown(found, "cpu.stat", lambda text: numbers(text).get("usage_usec", 0) / 1e6)


def _quota(found: Mapping[str, str]) -> str:
    quota, _, period = found.get("after cpu.max", "").partition(" ")
    quota = quota or found.get("after cpu.cfs_quota_us", "")
    period = period or found.get("after cpu.cfs_period_us", "")
    return f"quota {quota} of every {period} µs" if quota.isdigit() else ""


def _grown(found: Mapping[str, str], name: str, value: Callable[[str], float]) -> float:
    before, after = found.get(f"before {name}"), found.get(f"after {name}")
    return value(after) - value(before) if before and after else 0.0
