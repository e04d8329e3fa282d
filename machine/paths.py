"""Every file name and folder in one place, with a word on each."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


def store_root() -> Path:
    """``MACHINE_STORAGE_PATH``, else docker-machine's own default."""
    given = os.environ.get("MACHINE_STORAGE_PATH")
    return Path(given).expanduser().absolute() if given else Path.home() / ".docker" / "machine"


def cache_root() -> Path:
    """Images and bundles: shared by all stores of a user, safe to delete (``MACHINE_CACHE_PATH``)."""
    given = os.environ.get("MACHINE_CACHE_PATH")
    if given:
        return Path(given).expanduser().absolute()
    return _xdg("XDG_CACHE_HOME", ".cache") / "machine"


def control_socket(identifier: str, port: int | None = None) -> Path:
    """Of an ssh that holds a way to a machine open, by the machine's id: to its engine, or to a port
    of the user's. Beside it are its log and what it leads to."""
    name = identifier[:13] if port is None else f"{identifier[:13]}-{port}"
    return cache_root() / "tunnels" / name


def data_root() -> Path:
    """Session-mode disks: outside the store, so that a store can move while they run."""
    return _xdg("XDG_DATA_HOME", ".local/share") / "machine"


def config_root() -> Path:
    """The user's own templates and image catalogue."""
    return _xdg("XDG_CONFIG_HOME", ".config") / "machine"


def user_templates() -> Path:
    return config_root() / "templates"


def user_images() -> Path:
    """The user's own image catalogue, in the format of the shipped one."""
    return config_root() / "images.toml"


def shipped_templates() -> Path:
    """The package's own host templates, catalogue and file templates."""
    return Path(__file__).parent / "templates"


def shipped_images() -> Path:
    return shipped_templates() / "_images" / "catalogue.toml"


def _xdg(variable: str, default: str) -> Path:
    value = os.environ.get(variable, "")
    # The XDG base directory specification: a relative path is to be ignored.
    return Path(value) if value.startswith("/") else Path.home() / default


@dataclass(frozen=True, slots=True)
class MachineFolder:
    """``STORE/machines/NAME``: docker-machine's names, and ours beside them."""

    root: Path

    @property
    def record(self) -> Path:
        return self.root / "config.json"

    @property
    def ca(self) -> Path:  # copies, so that the folder can be DOCKER_CERT_PATH
        return self.root / "ca.pem"

    @property
    def client_cert(self) -> Path:
        return self.root / "cert.pem"

    @property
    def client_key(self) -> Path:
        return self.root / "key.pem"

    @property
    def server_cert(self) -> Path:
        return self.root / "server.pem"

    @property
    def server_key(self) -> Path:
        return self.root / "server-key.pem"

    @property
    def ssh_key(self) -> Path:
        return self.root / "id_ed25519"

    @property
    def ssh_key_public(self) -> Path:
        return self.root / "id_ed25519.pub"

    @property
    def host_key(self) -> Path:
        """The guest's own SSH host key; removed once the guest has it."""
        return self.root / "ssh_host_ed25519_key"

    def secret(self, key: str) -> Path:
        """What was given in place of a reference to it."""
        return self.root / f"secret-{key}"

    @property
    def known_hosts(self) -> Path:
        """The pinned host key, in OpenSSH's format."""
        return self.root / "known_hosts"

    @property
    def next_known_hosts(self) -> Path:
        """Of the key that takes the pinned one's place, until it has."""
        return self.root / "known_hosts.next"

    @property
    def ssh_config(self) -> Path:
        """An entry for the user's own ssh, written when asked for."""
        return self.root / "ssh_config"


@dataclass(frozen=True, slots=True)
class StoreFolder:
    """``~/.docker/machine``."""

    root: Path

    @property
    def machines(self) -> Path:
        return self.root / "machines"

    @property
    def certs(self) -> Path:
        return self.root / "certs"

    @property
    def locks(self) -> Path:
        """One lock file per machine, outside its folder so that a removal can hold it."""
        return self.root / ".locks"

    def machine(self, name: str) -> MachineFolder:
        return MachineFolder(self.machines / name)
