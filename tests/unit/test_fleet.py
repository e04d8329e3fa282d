"""The file of a fleet: what it says, and how what is wrong with it is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from machine import fleet
from machine.errors import BadOption, FleetError
from machine.fleet_schema import schema
from machine.model import EngineOptions, Setup

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.toml"))


def read(tmp_path: Path, text: str, **given: str) -> fleet.Fleet:
    path = tmp_path / "machines.toml"
    path.write_text(text)
    return fleet.read(path, given)


def machine(tmp_path: Path, text: str, **given: str) -> fleet.FleetMachine:
    return read(tmp_path, f'name = "lab"\n{text}', **given).machines[0]


def test_names_of_many(tmp_path: Path) -> None:
    text = """
    name = "lab"
    [machines.one]
    [machines.worker]
    count = 2
    [machines."node-${n}-x"]
    count = 2
    [machines.none]
    count = 0
    """
    found = read(tmp_path, text)
    names = ["one", "worker1", "worker2", "node-1-x", "node-2-x"]
    assert [each.name for each in found.machines] == names
    assert found.named("worker") == ["worker1", "worker2"]
    assert found.named("one") == ["one"]
    assert found.named("worker1") == ["worker1"]
    assert found.named("other") == []


def test_what_a_machine_is(tmp_path: Path) -> None:
    found = machine(
        tmp_path,
        """
        [defaults]
        driver = "libvirt"
        labels = { a = "1", b = "2" }
        [defaults.libvirt]
        network = "lab"
        memory = 512
        [machines.m1]
        template = "debian-12"
        cpus = 3
        labels = { b = "3" }
        swarm = "manager"
        node_labels = { tier = "x" }
        context = true
        [machines.m1.engine]
        options = ["debug=true"]
        env = ["A=b"]
        storage_driver = "overlay2"
        [machines.m1.libvirt]
        memory = 1024
        """,
    )
    assert (found.name, found.driver, found.template.image) == ("m1", "libvirt", "debian-12")
    assert found.template.cpus == 3
    assert found.options == {"network": "lab", "memory": 1024}
    assert found.engine == EngineOptions(
        labels=("a=1", "b=3"), opts=("debug=true",), env=("A=b",), storage_driver="overlay2"
    )
    assert (found.swarm, found.node_labels, found.context) == ("manager", {"tier": "x"}, True)
    assert found.setup is Setup.INSTALL


def test_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = """
    [variables]
    count = 1
    size = 512
    net = "lab"
    on = false
    [machines.m]
    count = "${count}"
    memory_mib = "${size}"
    context = "${on}"
    labels = { at = "${name} of ${net}, $${net}, number ${n} in ${folder}" }
    """
    found = machine(tmp_path, text)
    assert found.template.memory_mib == 512
    assert not found.context
    assert found.engine.labels == (f"at=m1 of lab, ${{net}}, number 1 in {tmp_path}",)
    monkeypatch.setenv("MACHINE_VAR_size", "768")
    monkeypatch.setenv("MACHINE_VAR_on", "true")
    found = machine(tmp_path, text, size="1024")
    assert (found.template.memory_mib, found.context) == (1024, True)


def test_needs_are_of_tables_and_names(tmp_path: Path) -> None:
    text = """
    name = "lab"
    [machines.m]
    count = 2
    [machines.w]
    needs = ["m", "m1"]
    """
    assert read(tmp_path, text).machines[2].needs == ("m1", "m2")


def test_files_count_from_the_file(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text('image = "mine"\n')
    found = machine(
        tmp_path,
        """
        [machines.m1]
        driver = "generic"
        template = "own.toml"
        [machines.m1.generic]
        ip_address = "x"
        sudo_password = "file:secret"
        """,
    )
    assert found.template.image == "mine"
    assert found.options["sudo_password"] == f"file:{tmp_path}/secret"


HEAD = 'name = "lab"\n'
ONE = '[machines.m1]\ndriver = "libvirt"\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name = ", ":1: Invalid value"),
        (ONE, ":1: name: is '', and must be a word of a-z, 0-9 and -"),
        ('name = "A b"\n' + ONE, ":1: name: is 'A b', and must be"),
        (HEAD, ":1: machines: there are none"),
        (HEAD + "machine = {}\n", ":2: machine: unknown key; did you mean machines?"),
        (HEAD + "machines = 5\n", ":2: machines: is 5, and must be a table"),
        (HEAD + "[machines]\nm1 = 5\n", ":3: machines.m1: is 5, and must be a table"),
        (HEAD + ONE + "cpu = 2\n", ":4: machines.m1.cpu: unknown key; did you mean cpus?"),
        (HEAD + ONE + 'cpus = "two"\n', ":4: machines.m1.cpus: is 'two', and must be a whole"),
        (HEAD + ONE + "cpus = 0\n", ":4: machines.m1.cpus: is 0, and must be between 1 and 255"),
        (HEAD + ONE + "cpus = true\n", ":4: machines.m1.cpus: is True, and must be a whole"),
        (HEAD + ONE + 'context = "yes"\n', ":4: machines.m1.context: is 'yes', and must be true"),
        (HEAD + ONE + 'needs = "m2"\n', ":4: machines.m1.needs: is 'm2', and must be a list"),
        (HEAD + ONE + "labels = { a = 1 }\n", ":4: machines.m1.labels: is {'a': 1}, and must be"),
        (HEAD + ONE + "count = 2000\n", ":4: machines.m1.count: is 2000, and must be between 0"),
        (HEAD + ONE + 'swarm = "boss"\n', ":4: machines.m1.swarm: is 'boss', and must be manager"),
        (HEAD + ONE + 'swarm = "worker"\n', ":4: machines.m1.swarm: a Swarm needs a manager"),
        (HEAD + ONE + 'node_labels = { a = "b" }\n', ":4: machines.m1.node_labels: are of a node"),
        (
            HEAD + ONE + 'needs = ["m11"]\n',
            ':4: machines.m1.needs: there is no "m11"; did you mean m1?',
        ),
        (
            HEAD + ONE + 'needs = ["m1"]\n',
            ":4: machines.m1.needs: machines need each other: m1 needs m1",
        ),
        (
            HEAD + ONE + 'needs = ["m2"]\n[machines.m2]\nneeds = ["m1"]\n',
            "needs: machines need each other: m",
        ),
        (
            HEAD + "[machines.m]\ncount = 1\n[machines.m1]\n",
            ':4: machines.m1: the name "m1" is that of a machine of "m" already',
        ),
        (HEAD + '[machines."a_b"]\n', ":2: machines.a_b: 'a_b' is no name of a machine"),
        (
            HEAD + '[machines.m1]\ndriver = "libvrt"\n',
            ':3: machines.m1.driver: the driver "libvrt" is not there; did you mean libvirt?',
        ),
        (
            HEAD + '[machines.m1]\ntemplate = "debian-31"\n',
            ':3: machines.m1.template: There is no template "debian-31"',
        ),
        (
            HEAD + "[machines.m1.libvirt]\nmemry = 5\n",
            ":3: machines.m1.libvirt.memry: unknown key; did you mean memory?",
        ),
        (
            HEAD + '[machines.m1.libvirt]\nmemory = "big"\n',
            ":3: machines.m1.libvirt.memory: is 'big', and must be a whole number",
        ),
        (
            HEAD + "[machines.m1.libvrt]\nmemory = 5\n",
            ":2: machines.m1.libvrt: unknown table; did you mean libvirt?",
        ),
        (
            HEAD + "[machines.m1.engine]\nopts = []\n",
            ":3: machines.m1.engine.opts: unknown key; did you mean options?",
        ),
        (
            HEAD + "[defaults]\ncount = 2\n" + ONE,
            ":3: defaults.count: unknown key",
        ),
        (
            HEAD + "[defaults.libvirt]\nmemory = 1\n" + ONE,
            ":3: defaults.libvirt.memory: is 1, and must be at least 256",
        ),
        (
            HEAD + '[variables]\nn = "x"\n' + ONE,
            ":3: variables.n: the name of a variable is taken",
        ),
        (HEAD + "[variables]\nx = []\n" + ONE, ":3: variables.x: is [], and must be text"),
        (
            HEAD + '[variables]\nsize = 5\n[machines.m1]\nmemory_mib = "${sise}"\n',
            ":5: machines.m1.memory_mib: ${sise}: unknown variable; did you mean size?",
        ),
        (
            HEAD + '[machines.m1]\ndriver = "generic"\nsetup = "adopt"\nlabels = { a = "b" }\n',
            ':4: machines.m1.setup: "adopt" leaves the engine as it is',
        ),
        (
            HEAD + '[machines.m1.generic]\nsudo_password = "hunter2"\n',
            ":3: machines.m1.generic.sudo_password: a secret does not belong into this file",
        ),
    ],
)
def test_mistakes(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(FleetError) as caught:
        read(tmp_path, text)
    assert f"{tmp_path}/machines.toml" in caught.value.brief
    assert words in caught.value.brief
    assert "hunter2" not in caught.value.brief + caught.value.hint
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"sise": "1"}, "--set sise: unknown key; did you mean size?"),
        ({"size": "big"}, "--set size is 'big', and must be a whole number"),
        ({"on": "yes"}, "--set on is 'yes', and must be true or false"),
    ],
)
def test_values_that_are_given(tmp_path: Path, given: dict[str, str], words: str) -> None:
    with pytest.raises(BadOption, match=words.replace("?", r"\?")):
        read(tmp_path, HEAD + "[variables]\nsize = 1\non = true\n" + ONE, **given)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_valid(path: Path) -> None:
    import jsonschema

    found = fleet.read(path)
    assert found.machines
    jsonschema.validate(_plain(path), schema(), jsonschema.Draft202012Validator)


def test_there_is_an_example_of_each_kind() -> None:
    drivers = {each.driver for path in EXAMPLES for each in fleet.read(path).machines}
    assert {"libvirt", "virtualbox", "generic", "digitalocean"} <= drivers
    swarm = fleet.read(ROOT / "docs" / "examples" / "swarm.toml", {"workers": "2"})
    roles = [each.swarm for each in swarm.machines]
    assert (roles.count("manager"), roles.count("worker")) == (3, 2)


@pytest.mark.parametrize(
    "text",
    [
        ONE,
        HEAD + ONE + "cpu = 2\n",
        HEAD + ONE + "cpus = 0\n",
        HEAD + ONE + 'cpus = "many"\n',
        HEAD + ONE + 'swarm = "boss"\n',
        HEAD + "[machines.m1.libvirt]\nmemry = 5\n",
        HEAD + "[machines.m1.engine]\nopts = []\n",
        HEAD + "[defaults]\ncount = 5\n" + ONE,
    ],
)
def test_the_schema_marks_mistakes_too(tmp_path: Path, text: str) -> None:
    import jsonschema

    path = tmp_path / "machines.toml"
    path.write_text(text)
    checker = jsonschema.Draft202012Validator(schema())
    assert not checker.is_valid(_plain(path))
    checker.check_schema(schema())


def _plain(path: Path) -> dict[str, Any]:
    import tomllib

    return tomllib.loads(path.read_text())
