"""In a Swarm: the overlay network, and the routing mesh that publishes a service's port."""

from __future__ import annotations

import ipaddress
import shlex
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from machine import wait
from machine.errors import EngineError, TimedOut
from machine.guest import Guest
from machine.model import Address, Verdict
from machine.runtime.docker.check import interfaces, network, scene
from machine.runtime.docker.check.greeting import GREETING, PATIENCE, PORT, SERVE, connect
from machine.runtime.docker.check.lesson import Lesson, sections
from machine.runtime.docker.check.scene import IMAGE, LABEL, PATH, Scene

OVERLAY_NAME: Final = "machine-check-overlay"
SERVICE: Final = "machine-check-web"
STATES: Final = ("failed", "rejected", "orphaned")
"""In which a task ends that does not come to run."""

OVERLAY: Final = Lesson(
    "overlay network",
    "A network that the containers of all nodes of a Swarm are on, as if they had one switch: their "
    "frames travel between the nodes in UDP packets (VXLAN, port 4789).",
    (
        "sudo docker network ls --filter driver=overlay",
        "sudo docker network inspect -v NETWORK",
        "sudo docker exec CONTAINER getent hosts tasks.SERVICE   # its containers",
    ),
)
BALANCE: Final = Lesson(
    "service address",
    "A service has one address in each of its networks, and its name leads there. The kernel (IPVS) "
    "passes every connection on to one of the service's containers.",
    (
        "sudo docker exec CONTAINER getent hosts SERVICE",
        "sudo docker service inspect -f '{{json .Endpoint.VirtualIPs}}' SERVICE",
    ),
)
MESH: Final = Lesson(
    "routing mesh",
    "A published port of a service is open on every node, also where none of its containers is: the "
    "node passes the connection on over the network `ingress`.",
    (
        "sudo docker service inspect -f '{{json .Endpoint.Ports}}' SERVICE",
        "curl http://NODE:PORT   # any node",
    ),
)
LESSONS: Final = (OVERLAY, BALANCE, MESH)


def ask_service(own: str, virtual: str) -> str:
    """A script that has the container of $pid look the service up, and connect to its container's
    own address and to the one that the service has."""
    lines = [network.ask_name(SERVICE)]
    for title, address in (("own", own), ("virtual", virtual)):
        asked = f"{{ {connect(address, PORT)}; }} >/asked; mv /asked /answer"
        lines.append(f"""
rm -f "$answer"
printf "%s\\n" {shlex.quote(asked)} > "$tasks"
{network.answered(60)}echo "== {title}"
cat "$answer"
""")
    lines.append('echo "== addresses"; cat "/proc/$pid/net/fib_trie"')
    return "\n".join(lines)


def verdicts(guest: Guest, made: Scene, address: Address) -> Iterator[Verdict]:
    """All three; where the engine cannot be asked for a service they are not applicable."""
    from docker.errors import APIError

    state = made.client.info()["Swarm"]
    if reason := _away(state):
        yield from (lesson.not_applicable(reason) for lesson in LESSONS)
        return
    try:
        yield from _shown(guest, made, address, state)
    except (APIError, EngineError, TimedOut) as exc:
        said = str(exc.explanation) if isinstance(exc, APIError) else f"{exc.brief}\n{exc.details}"
        for lesson in LESSONS:
            yield lesson.failed("a service with a network did not come up", *said.splitlines())


def _shown(
    guest: Guest, made: Scene, address: Address, state: Mapping[str, Any]
) -> Sequence[Verdict]:
    node = str(state["NodeID"])
    subnet, vxlan = _overlay(made)
    service, task = _service(made, node)
    ident = made.client.inspect_network(OVERLAY_NAME)["Id"]
    own, virtual = _own(task, ident), _virtual(service, ident)
    made.client.connect_container_to_network(scene.PEER, OVERLAY_NAME)
    text = scene.ask(guest, made.peer["State"]["Pid"], ask_service(own, virtual))
    name = task["Status"]["ContainerStatus"]["ContainerID"][:12]
    port = int(service["Endpoint"]["Ports"][0]["PublishedPort"])
    nodes = (str(state["NodeAddr"]), *_others(made, node))
    answers = {f"{each}:{port}": _ask_from(guest, each, port) for each in nodes}
    answered = f"{GREETING} {name}" in answers.values()
    here = _ask_from_here(address.host, port, answered=answered)
    return (
        judge_overlay(text, subnet, vxlan, own, name),
        judge_balance(text, virtual, name),
        judge_mesh(answers, here, name),
    )


def _away(state: Mapping[str, Any]) -> str:
    if state["LocalNodeState"] != "active":
        return "the host is in no Swarm"
    if not state.get("ControlAvailable"):
        return "the host is a worker: check a manager of its Swarm"
    return ""


def _overlay(made: Scene) -> tuple[str, str]:
    """A network of its own: its subnet and its VXLAN's number, which the manager gives it."""
    client = made.client
    client.create_network(OVERLAY_NAME, driver="overlay", labels={LABEL: ""}, attachable=True)
    found = wait.until(
        "the check's overlay network to get a subnet",
        lambda: _allocated(client.inspect_network(OVERLAY_NAME, scope="swarm")),
        timeout=60,
    )
    vxlan = (found.get("Options") or {}).get("com.docker.network.driver.overlay.vxlanid_list", "")
    return found["IPAM"]["Config"][0]["Subnet"], vxlan


def _allocated(found: dict[str, Any]) -> dict[str, Any] | None:
    return found if (found.get("IPAM") or {}).get("Config") else None


def _service(made: Scene, node: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """With one container, on this node: only here are image and programs known. When that runs."""
    from docker.types import (
        ContainerSpec,
        EndpointSpec,
        NetworkAttachmentConfig,
        Placement,
        Privileges,
        TaskTemplate,
    )

    client: Any = made.client  # types-docker has no types for services
    spec = ContainerSpec(
        IMAGE,
        ["/bin/sh", "-c", SERVE],
        env={"PATH": PATH},
        labels={LABEL: ""},
        mounts=list(made.mounts),
        privileges=Privileges(selinux_disable=True),  # as of the other containers
    )
    template = TaskTemplate(
        spec,
        networks=[NetworkAttachmentConfig(OVERLAY_NAME)],
        placement=Placement(constraints=[f"node.id=={node}"]),
    )
    port: Any = {"Protocol": "tcp", "TargetPort": PORT, "PublishMode": "ingress"}
    made_id = client.create_service(
        template, SERVICE, labels={LABEL: ""}, endpoint_spec=EndpointSpec(ports=[port])
    )["ID"]
    task = wait.until(
        "the check's service to run",
        lambda: _running(client.tasks(filters={"service": SERVICE})),
        timeout=300,
        most=2,
        last_answer=lambda: _told(client.tasks(filters={"service": SERVICE})),
    )
    return client.inspect_service(made_id), task


def _running(tasks: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Raises EngineError for one that will not."""
    for task in tasks:
        if task["Status"]["State"] == "running":
            return dict(task)
        if task["Status"]["State"] in STATES:
            raise EngineError("The check's service does not run", details=_told(tasks))
    return None


def _told(tasks: Sequence[Mapping[str, Any]]) -> str:
    said = (task["Status"].get("Err") or task["Status"]["Message"] for task in tasks)
    return "\n".join(said)


def _own(task: Mapping[str, Any], network_id: str) -> str:
    """The address of a service's container in a network."""
    for each in task["NetworksAttachments"]:
        if each["Network"]["ID"] == network_id:
            return str(each["Addresses"][0]).partition("/")[0]
    raise EngineError("The container of the check's service has no address in its network")


def _virtual(service: Mapping[str, Any], network_id: str) -> str:
    """The service's one address in a network."""
    for each in service["Endpoint"]["VirtualIPs"]:
        if each["NetworkID"] == network_id:
            return str(each["Addr"]).partition("/")[0]
    raise EngineError("The check's service has no address in its network")


def _others(made: Scene, node: str) -> list[str]:
    """The addresses of the Swarm's other nodes that are there."""
    return [
        str(each["Status"]["Addr"])
        for each in made.client.nodes()
        if each["ID"] != node and each["Status"]["State"] == "ready"
    ]


def _ask_from(guest: Guest, host: str, port: int) -> str:
    return guest.script(connect(host, port), timeout=180).stdout.strip()


def _ask_from_here(host: str, port: int, *, answered: bool) -> str:
    """``answered``: it was on the node, and may be here too a moment later."""
    said = ""

    def answer() -> str:
        nonlocal said
        try:
            with socket.create_connection((host, port), timeout=20) as connection:
                said = connection.recv(99).decode("utf-8", "replace").strip()
        except OSError as exc:
            said = str(exc)
            return ""
        return said

    with suppress(TimedOut):
        wait.until("an answer", answer, timeout=PATIENCE if answered else 0)
    return said


def judge_overlay(text: str, subnet: str, vxlan: str, own: str, name: str) -> Verdict:
    """``text`` is what the script of ``ask_service`` printed; ``name`` the service's container,
    which has the address ``own``."""
    found = sections(text)
    pool = ipaddress.ip_network(subnet)
    others = [
        a for a in interfaces.addresses(found["addresses"]) if ipaddress.ip_address(a) in pool
    ]
    evidence = (
        f"{OVERLAY_NAME} is {subnet}, VXLAN {vxlan or 'not told'}",
        f"a container has {', '.join(others) or 'no address'} in it, the service's has {own}",
        f"the one asks the other at {own}:{PORT}: {found['own']}",
    )
    if not others:
        return OVERLAY.failed("a container got no address in the network", *evidence)
    if found["own"] != f"{GREETING} {name}":
        return OVERLAY.failed("one container does not reach another over it", *evidence)
    return OVERLAY.ok("one container reaches another over it", *evidence)


def judge_balance(text: str, virtual: str, name: str) -> Verdict:
    found = sections(text)
    evidence = (
        f"a container looks {SERVICE} up: {' '.join(found['answer'].split())}",
        f"it asks {virtual}:{PORT}: {found['virtual']}",
    )
    if virtual not in found["answer"].split():
        return BALANCE.failed(f"{SERVICE} is not known as {virtual}", *evidence)
    if found["virtual"] != f"{GREETING} {name}":
        return BALANCE.failed("the service is not reached at its address", *evidence)
    return BALANCE.ok(f"{virtual} leads to the service's container", *evidence)


def judge_mesh(answers: Mapping[str, str], here: str, name: str) -> Verdict:
    """``answers`` of the nodes' addresses, asked on the node. What lies between here and the node
    is not the mesh's affair: a firewall may be in the way, or only some ports are forwarded."""
    wanted = f"{GREETING} {name}"
    evidence = [f"asked on the host, {place}: {said}" for place, said in answers.items()]
    evidence.append(f"asked from here: {here}")
    if bad := [place for place, said in answers.items() if said != wanted]:
        return MESH.failed(f"the service does not answer at {', '.join(bad)}", *evidence)
    way = "" if here == wanted else "; from here there is no way to that port"
    return MESH.ok(f"the published port leads to the service's container{way}", *evidence)
