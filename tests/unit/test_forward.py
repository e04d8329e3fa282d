"""The rules by which QEMU forwards ports, and how a definition gets others."""

from __future__ import annotations

from machine.drivers.libvirt import forward

ID = "0b6b2f1e-0000-4000-8000-000000000001"


def test_a_machine_has_its_own_ports_and_others_for_each_attempt() -> None:
    pairs = {forward.ports(ID, attempt) for attempt in range(forward.TRIES)}
    assert len(pairs) == forward.TRIES
    assert forward.ports(ID) == forward.ports(ID)
    for ssh_port, engine_port in pairs:
        assert 20000 <= ssh_port < engine_port < 32768


def test_a_definition_is_read_and_moved() -> None:
    for bind in ("127.0.0.1", ""):
        xml = f'<qemu:arg value="user,id=a,{forward.rules(bind, 22022, 22023, 2376)}"/>'
        assert forward.read(xml) == (22022, 22023)
        moved = forward.moved(xml, 22100, 22101)
        assert moved == xml.replace("22022", "22100").replace("22023", "22101")
    assert forward.read("<domain/>") is None
    assert forward.moved("<domain/>", 1, 2) == "<domain/>"
