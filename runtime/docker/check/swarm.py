"""In a Swarm: the overlay network, and the routing mesh that publishes a service's port."""

from __future__ import annotations

import ipaddress
import shlex
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from machine import wait
from machine.errors import EngineError
from machine.guest import Guest
from machine.model import Address, Verdict
from machine.runtime.docker.check import interfaces, network, scene
from machine.runtime.docker.check.lesson import Lesson, sections
from machine.runtime.docker.check.scene import IMAGE, LABEL, PATH, Scene

OVERLAY_NAME: Final = "machine-check-overlay"
SERVICE: Final = "machine-check-web"
PORT: Final = 80
GREETING: Final = "this is"
"""What the service says to whoever connects, with its container's name behind it."""
STATES: Final = ("failed", "rejected", "orphaned")
"""In which a task ends that does not come to run."""

OVERLAY: Final = Lesson(
    "overlay network",
    "A network that the containers of all nodes of a Swarm are on, as if they had one switch: their "
    "frames travel between the nodes in UDP packets (VXLAN, port 4789). A service has one address "
    "there, and a connection to it goes to one of its containers (IPVS).",
    (
        "sudo docker network ls --filter driver=overlay",
        "sudo docker network inspect -v NETWORK",
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
# perl's own functions, without a module: so that it needs nothing but its program.
SERVE: Final = f"""
name=$(cat /proc/sys/kernel/hostname)
if command -v perl >/dev/null; then
    exec perl -e 'socket(S,2,1,6)||die $!; bind(S,pack("S n x12",2,{PORT}))||die $!; listen(S,9);
        while(accept(C,S)){{syswrite(C,"{GREETING} $ARGV[0]\\n");close(C)}}' "$name"
elif command -v python3 >/dev/null; then
    exec python3 -c 'import socket,sys
server=socket.create_server(("",{PORT}))
while True:
    one=server.accept()[0]; one.sendall(b"{GREETING} "+sys.argv[1].encode()+b"\\n"); one.close()' "$name"
fi
while :; do echo "{GREETING} $name" | nc -l -p {PORT}; done
"""
"""With whichever of the host's programs can listen."""


def connect(host: str, port: int) -> str:
    """A line for sh that prints what the service says."""
    packed = "pack(q(S n C4 x8),2,$ARGV[1],split(/[.]/,$ARGV[0]))"
    perl = f"alarm 20; socket(S,2,1,6)||die $!; connect(S,{packed})||die $!; print <S>"
    python = (
        "import socket,sys; print(socket.create_connection((sys.argv[1],int(sys.argv[2])),20)"
        ".recv(99).decode())"
    )
    where = f"{shlex.quote(host)} {port}"
    return (
        f"if command -v perl >/dev/null; then perl -e '{perl}' {where}; "
        f"elif command -v python3 >/dev/null; then python3 -c '{python}' {where}; "
        f"else nc -w 20 {where} </dev/null; fi"
    )


def ask_service(address: str) -> str:
    """A script that has the container of $pid look the service up, and connect to it."""
    look_up = network.ask_name(SERVICE)
    asked = shlex.quote(f"{{ {connect(address, PORT)}; }} >/asked 2>&1; mv /asked /answer")
    return f"""{look_up}
rm -f "$answer"
printf "%s\\n" {asked} > "$tasks"
tries=0
while [ ! -e "$answer" ] && [ $tries -lt 600 ]; do
    sleep 0.1
    tries=$((tries + 1))
done
echo "== service"
cat "$answer"
echo "== addresses"
cat "/proc/$pid/net/fib_trie"
"""


def verdicts(guest: Guest, made: Scene, address: Address) -> Iterator[Verdict]:
    """Both; where the engine cannot be asked for a service they are not applicable."""
    state = made.client.info()["Swarm"]
    if reason := _away(state):
        yield OVERLAY.not_applicable(reason)
        yield MESH.not_applicable(reason)
        return
    node = str(state["NodeID"])
    subnet, vxlan = _overlay(made)
    service, task = _service(made, node)
    virtual = _virtual(service, made.client.inspect_network(OVERLAY_NAME)["Id"])
    made.client.connect_container_to_network(scene.PEER, OVERLAY_NAME)
    text = scene.ask(guest, made.peer["State"]["Pid"], ask_service(virtual))
    name = task["Status"]["ContainerStatus"]["ContainerID"][:12]
    yield judge_overlay(text, subnet, vxlan, virtual, name)
    port = int(service["Endpoint"]["Ports"][0]["PublishedPort"])
    own = str(state["NodeAddr"])
    answers = {f"the node itself, {own}:{port}": _ask_from(guest, own, port)}
    for other in _others(made, node):
        answers[f"the node, at {other}:{port}"] = _ask_from(guest, other, port)
    answers[f"here, {address.host}:{port}"] = _ask_from_here(address.host, port)
    yield judge_mesh(answers, name)


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
    found = client.inspect_network(OVERLAY_NAME, scope="swarm")
    vxlan = (found.get("Options") or {}).get("com.docker.network.driver.overlay.vxlanid_list", "")
    return found["IPAM"]["Config"][0]["Subnet"], vxlan


def _service(made: Scene, node: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """With one container, on this node: only here are image and programs known. When that runs."""
    from docker.types import (
        ContainerSpec,
        EndpointSpec,
        NetworkAttachmentConfig,
        Placement,
        TaskTemplate,
    )

    client: Any = made.client  # types-docker has no types for services
    spec = ContainerSpec(
        IMAGE,
        ["/bin/sh", "-c", SERVE],
        env={"PATH": PATH},
        labels={LABEL: ""},
        mounts=list(made.mounts),
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
    result = guest.script(connect(host, port), timeout=120, check=False)
    return result.stdout.strip() or result.stderr.strip()


def _ask_from_here(host: str, port: int) -> str:
    try:
        with socket.create_connection((host, port), timeout=20) as connection:
            return connection.recv(99).decode("utf-8", "replace").strip()
    except OSError as exc:
        return str(exc)


def judge_overlay(text: str, subnet: str, vxlan: str, virtual: str, name: str) -> Verdict:
    """``text`` is what the script of ``ask_service`` printed; ``name`` the service's container."""
    found = sections(text)
    pool = ipaddress.ip_network(subnet)
    own = [a for a in interfaces.addresses(found["addresses"]) if ipaddress.ip_address(a) in pool]
    evidence = (
        f"{OVERLAY_NAME} is {subnet}, VXLAN {vxlan or 'not told'}",
        f"another container has {', '.join(own) or 'no address'} in it",
        f"it looks {SERVICE} up: {' '.join(found['answer'].split())}",
        f"it connects to {virtual}:{PORT}: {found['service']}",
    )
    if not own:
        return OVERLAY.failed("a container got no address in the network", *evidence)
    if virtual not in found["answer"].split():
        return OVERLAY.failed(f"{SERVICE} is not known as {virtual}", *evidence)
    if found["service"] != f"{GREETING} {name}":
        return OVERLAY.failed("the service is not reached over it", *evidence)
    return OVERLAY.ok("a service is found and reached over it", *evidence)


def judge_mesh(answers: Mapping[str, str], name: str) -> Verdict:
    """``answers`` by where was asked. What lies between here and the node is not the mesh's affair: a
    firewall may be in the way, or a port that is forwarded."""
    wanted = f"{GREETING} {name}"
    evidence = [f"asked {place}: {answer or 'no answer'}" for place, answer in answers.items()]
    bad = [
        place
        for place, answer in answers.items()
        if answer != wanted and not place.startswith("here")
    ]
    if bad:
        return MESH.failed(f"no answer of the service at {'; '.join(bad)}", *evidence)
    here = all(answer == wanted for answer in answers.values())
    where = "" if here else "; from here there is no way to that port"
    return MESH.ok(f"the published port is the service's{where}", *evidence)
