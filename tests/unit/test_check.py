"""What a check makes of what hosts answered: texts as they were read, and spoilt in one place."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from machine.model import Outcome, Verdict
from machine.runtime.docker.check import interfaces, layers, limits, namespaces, network, swarm
from machine.runtime.docker.check.lesson import sections
from machine.runtime.docker.check.network import Promise

RECORDED = Path(__file__).parent / "recorded" / "check"
PROMISE = Promise("172.19.0.2", "172.19.0.1")
POOL = "172.19.0.0/16"


def recorded(name: str) -> str:
    return (RECORDED / f"{name}.txt").read_text()


def failed(verdicts: Iterable[Verdict]) -> dict[str, str]:
    return {each.name: each.text for each in verdicts if each.outcome is Outcome.FAILED}


def spoilt(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new)


def test_a_text_has_sections() -> None:
    assert sections("noise\n== a b\n1\n\n2\n== c\n") == {"a b": "1\n\n2", "c": ""}


class TestNamespaces:
    def test_each_is_the_containers_own(self) -> None:
        found = list(namespaces.judge(recorded("namespaces"), ["name=seccomp", "name=cgroupns"]))
        assert not failed(found)
        assert [each.name for each in found if each.outcome is Outcome.NOT_APPLICABLE] == [
            "user namespace"
        ]
        assert "its process 1 is the host's process 1490" in found[0].evidence

    def test_one_that_is_shared_fails(self) -> None:
        text = spoilt(recorded("namespaces"), "net:[4026532972]", "net:[4026532645]")
        assert failed(namespaces.judge(text, [])) == {"net namespace": "shared with the host"}

    def test_users_that_were_to_be_separate_and_are_not(self) -> None:
        found = namespaces.judge(recorded("namespaces"), ["name=userns"])
        assert failed(found) == {"user namespace": "shared with the host"}

    def test_a_kernel_may_have_fewer(self) -> None:
        text = spoilt(recorded("namespaces"), "cgroup cgroup", "other cgroup")
        *_, last = namespaces.judge(text, [])
        assert (last.name, last.outcome) == ("cgroup namespace", Outcome.NOT_APPLICABLE)


class TestLimits:
    @pytest.mark.parametrize("version", ["v1", "v2"])
    def test_they_are_enforced(self, version: str) -> None:
        memory = limits.judge_memory(recorded(f"memory-{version}"), [])
        cpu = limits.judge_cpu(recorded(f"cpu-{version}"), [])
        assert (memory.outcome, cpu.outcome) == (Outcome.OK, Outcome.OK)
        assert "a process that asked for 96 MiB of 32 MiB was ended" in memory.text

    def test_a_host_without_controllers_gives_what_is_asked_for(self) -> None:
        memory = limits.judge_memory(recorded("memory-none"), ["No memory limit: discarded."])
        cpu = limits.judge_cpu(recorded("cpu-none"), ["CPU quota discarded."])
        assert failed([memory]) == {
            "memory limit": "96 MiB were given to a container that may have 32"
        }
        assert "may have 5%" in failed([cpu])["CPU limit"]
        assert "the engine said: No memory limit: discarded." in memory.evidence
        assert "the engine said: CPU quota discarded." in cpu.evidence

    def test_a_limit_that_is_set_and_not_enforced_fails(self) -> None:
        text = spoilt(recorded("memory-v1"), "oom_kill 1", "oom_kill 0")
        text = spoilt(text, "== eaten\n137", "== eaten\n0")
        assert "96 MiB were given" in failed([limits.judge_memory(text, [])])["memory limit"]
        text = spoilt(recorded("cpu-v1"), "== after cpuacct.usage\n", "== after cpuacct.usage\n9")
        assert "may have 5%" in failed([limits.judge_cpu(text, [])])["CPU limit"]

    def test_a_process_that_ended_for_another_reason_is_no_proof(self) -> None:
        text = spoilt(recorded("memory-v1"), "oom_kill 1", "oom_kill 0")
        assert failed([limits.judge_memory(text, [])])

    def test_a_host_too_busy_for_the_loops_is_no_proof(self) -> None:
        text = re.sub("nr_throttled [0-9]+", "nr_throttled 9", recorded("cpu-v1"))
        assert "too busy" in failed([limits.judge_cpu(text, [])])["CPU limit"]


class TestLayers:
    def test_lower_and_upper_are_read_from_the_mount(self) -> None:
        found = layers.union(recorded("mounts"))
        assert found
        assert len(found.lower) == 2
        assert found.upper.endswith("/diff")
        assert layers.judge_mount(recorded("mounts")).outcome is Outcome.OK

    def test_newer_kernels_list_each_lower_folder(self) -> None:
        line = r"overlay / overlay rw,lowerdir+=/a\040b,lowerdir+=/c,upperdir=/u,workdir=/w 0 0"
        assert layers.union(line) == layers.Union(("/a b", "/c"), "/u")

    def test_another_file_system_is_none(self) -> None:
        verdict = layers.judge_mount("/dev/vda1 / ext4 rw 0 0\n")
        assert "no overlay, but ext4" in failed([verdict])["union file system"]

    def test_writes_land_in_the_upper_one(self) -> None:
        union = layers.union(recorded("mounts"))
        assert union
        assert layers.judge_files(recorded("layers"), union).outcome is Outcome.OK

    @pytest.mark.parametrize(
        ("old", "new", "problem"),
        [
            ("== 0 written", "== 1 written", "a new file is in a lower layer"),
            ("== 0 written", "== x y", "a new file is not in the upper layer"),
            ("== 0 from-image", "== x y", "a changed file is not in the upper layer"),
            (layers.BEFORE, layers.AFTER, "the image's own file is not as it was"),
        ],
    )
    def test_anything_else_fails(self, old: str, new: str, problem: str) -> None:
        union = layers.Union(("/l1", "/l2"), "/u")
        verdict = layers.judge_files(spoilt(recorded("layers"), old, new), union)
        assert problem in failed([verdict])["copy on write"]


class TestNetwork:
    def test_all_of_it_holds(self) -> None:
        found = list(network.judge(recorded("interfaces"), POOL, PROMISE))
        assert not failed(found)
        assert [each.text for each in found] == [
            "eth0 in the container and vethdf0491c on the host are one cable",
            "vethdf0491c is a port of br-07ee301018f5",
            "172.19.0.2 is in 172.19.0.0/16",
            "by eth0 to 172.19.0.1, the bridge's address",
        ]

    @pytest.mark.parametrize(
        ("old", "new", "names"),
        [
            ("vethdf0491c 11 10", "vethdf0491c 11 99", {"veth pair", "bridge"}),
            ("br-07ee301018f5 9 9 - bridge", "br-07ee301018f5 9 9 - -", {"bridge"}),
            ("vethdf0491c 11 10 br-07ee301018f5", "vethdf0491c 11 10 -", {"bridge"}),
            ("|-- 172.19.0.2\n", "|-- 172.19.0.3\n", {"address from the pool"}),
            (
                "eth0	00000000	010013AC	0003",
                "eth0	00000000	020013AC	0003",
                {"default route"},
            ),
            (
                "eth0	00000000	010013AC	0003",
                "eth0	00000001	010013AC	0003",
                {"default route"},
            ),
        ],
    )
    def test_what_is_broken_is_named(self, old: str, new: str, names: set[str]) -> None:
        text = spoilt(recorded("interfaces"), old, new)
        assert set(failed(network.judge(text, POOL, PROMISE))) == names

    def test_an_address_outside_of_the_pool_fails(self) -> None:
        found = failed(network.judge(recorded("interfaces"), "10.0.0.0/8", PROMISE))
        assert found == {"address from the pool": "172.19.0.2 is not in 10.0.0.0/8"}

    def test_names(self) -> None:
        text, name = recorded("names"), "machine-check"
        assert network.judge_name(text, name, "172.19.0.2").outcome is Outcome.OK
        assert network.judge_name(text, name, "172.19.0.20").outcome is Outcome.FAILED

    def test_a_route_without_a_gateway_is_no_default_route(self) -> None:
        assert interfaces.default_route("head\neth0 00000000 00000000 0001 0 0 0 00000000") is None


class TestSwarm:
    def test_a_service_is_reached_over_the_overlay_and_at_its_address(self) -> None:
        text, name = recorded("service"), "2ce76b2b7891"
        overlay = swarm.judge_overlay(text, "10.0.1.0/24", "4097", "10.0.1.3", name)
        balance = swarm.judge_balance(text, "10.0.1.2", name)
        assert (overlay.outcome, balance.outcome) == (Outcome.OK, Outcome.OK)
        elsewhere = swarm.judge_overlay(text, "10.9.0.0/24", "4097", "10.0.1.3", name)
        assert "got no address" in failed([elsewhere])["overlay network"]

    def test_an_overlay_reaches_and_a_service_does_not_without_ipvs(self) -> None:
        text = recorded("service-no-ipvs")
        name = sections(text)["own"].removeprefix("this is ")
        overlay = swarm.judge_overlay(text, "10.0.5.0/24", "4101", "10.0.5.3", name)
        balance = swarm.judge_balance(text, "10.0.5.2", name)
        assert (overlay.outcome, balance.outcome) == (Outcome.OK, Outcome.FAILED)
        assert "VXLAN 4101" in overlay.evidence[0]

    def test_another_containers_answer_is_no_proof(self) -> None:
        text = recorded("service-no-ipvs")
        other = swarm.judge_overlay(text, "10.0.5.0/24", "", "10.0.5.3", "another")
        assert other.outcome is Outcome.FAILED

    def test_the_mesh_has_to_answer_on_every_node(self) -> None:
        answers = {"10.0.0.1:30000": "this is abc", "10.0.0.2:30000": "Connection refused"}
        verdict = swarm.judge_mesh(answers, "this is abc", "abc")
        assert failed([verdict]) == {
            "routing mesh": "the service does not answer at 10.0.0.2:30000"
        }

    def test_what_is_between_here_and_the_node_is_not_the_meshs_affair(self) -> None:
        verdict = swarm.judge_mesh({"10.0.0.1:30000": "this is abc"}, "timed out", "abc")
        assert verdict.outcome is Outcome.OK
        assert verdict.text.endswith("from here there is no way to that port")
