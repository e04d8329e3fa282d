"""Who may import whom: downward only, plugins apart, one door per danger."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLACES = {"machine": "machine", "drivers": "machine.drivers", "runtime": "machine.runtime"}

LAYERS = {  # a module may import its own number or a lower one
    **dict.fromkeys(
        (
            "errors",
            "model",
            "events",
            "paths",
            "wait",
            "flags",
            "files",
            "tomlfile",
            "redaction",
            "derived",
        ),
        0,
    ),
    **dict.fromkeys(
        (
            "command",
            "ssh",
            "render",
            "tls",
            "keys",
            "seed",
            "secret",
            "systemd",
            "transfer",
            "download",
            "sealed",
            "forward",
            "parcel",
            "tree",
            "watch",
        ),
        1,
    ),
    **dict.fromkeys(
        (
            *("guest", "shell", "provisioner", "engine", "driver", "swarm"),
            *("firewall", "filter_rules", "sync"),
        ),
        2,
    ),
    **dict.fromkeys(("container_image", "container_files", "container_archive"), 2),
    **dict.fromkeys(("drivers", "runtime", "provisioners", "shells"), 3),
    **dict.fromkeys(("compat", "record", "store"), 3),
    **dict.fromkeys(
        ("images", "image_build", "image_folder", "disk_image", "boot_disk", "catalogue"), 3
    ),
    **dict.fromkeys(("chroot", "folder_cache", "ledger", "fallback", "manifest", "layers"), 3),
    **dict.fromkeys(("registry", "provision_detect", "template"), 4),
    **dict.fromkeys(("fleet", "fleet_keys", "fleet_schema", "planner"), 4),
    "host": 5,
    "workflows": 6,
    "testing": 7,
    "cli": 8,
    "__main__": 9,
}
DOORS = {  # what only these may import
    "subprocess": {"machine.command"},
    "paramiko": {"machine.ssh", "machine.testing.sshd"},
    "libvirt": {"machine.drivers.libvirt"},
    "requests": {
        "machine.download",
        "machine.runtime.docker.client",
        "machine.runtime.docker.session",
    },
    "docker": {"machine.runtime.docker"},
    "textual": {"machine.cli.top"},
    "rich": {"machine.cli.live", "machine.cli.top"},
    "watchfiles": {"machine.watch"},
    "keyring": {"machine.secret"},
    "libcloud": {"machine.drivers.cloud"},
    "boto3": {"machine.drivers.amazonec2"},
    "botocore": {"machine.drivers.amazonec2"},
}


def modules() -> Iterator[tuple[str, Path]]:
    for place, package in PLACES.items():
        for path in sorted((ROOT / place).rglob("*.py")):
            inside = path.relative_to(ROOT / place).with_suffix("").parts
            if place == "machine" and inside[0] in ("drivers", "templates", "runtime"):
                continue
            yield ".".join((package, *(part for part in inside if part != "__init__"))), path


def imports(path: Path) -> Iterator[str]:
    """Every module named in an import statement, wherever it stands; typing-only ones as well."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            assert node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(module: str) -> int:
    parts = module.split(".")
    return LAYERS.get(parts[1], -1) if len(parts) > 1 else -1


ALL = list(modules())


@pytest.mark.parametrize(("module", "path"), ALL, ids=[name for name, _ in ALL])
def test_imports_go_downward(module: str, path: Path) -> None:
    if len(module.split(".")) == 1:
        return
    assert module.split(".")[1] in LAYERS, f"{module} has no place in LAYERS"
    for name in imports(path):
        if name.startswith("machine."):
            assert layer(name) <= layer(module), f"{module} imports {name}"


@pytest.mark.parametrize(("module", "path"), ALL, ids=[name for name, _ in ALL])
def test_dangers_have_one_door(module: str, path: Path) -> None:
    for name in imports(path):
        doors = DOORS.get(name.split(".")[0])
        if doors:
            assert any(module == door or module.startswith(door + ".") for door in doors), name


@pytest.mark.parametrize(("module", "path"), ALL, ids=[name for name, _ in ALL])
def test_plugins_stand_apart(module: str, path: Path) -> None:
    """A plugin imports neither another plugin nor the store, the registry or the command line."""
    kinds = ("machine.drivers.", "machine.runtime.", "machine.provisioners.", "machine.shells.")
    if not module.startswith(kinds):
        return
    own = ".".join(module.split(".")[:3])
    for name in imports(path):
        if name.startswith(kinds) and not module.startswith("machine.provisioners."):
            assert name.startswith((own, "machine.runtime.bundle")), f"{module} imports {name}"
        assert not name.startswith(("machine.store", "machine.registry", "machine.cli"))


def test_the_core_knows_no_plugin_by_name() -> None:
    """Outside the registry's tables, no string of the core names a driver."""
    for module, path in ALL:
        if module.startswith(("machine.workflows", "machine.host", "machine.store")):
            words = {
                node.value
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                if isinstance(node, ast.Constant) and isinstance(node.value, str)
            }
            assert not words & {"libvirt", "virtualbox", "none", "generic"}, module
