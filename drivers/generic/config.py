"""What a user may say of a host that is there already, and what was learned of it."""

from __future__ import annotations

from dataclasses import dataclass

from machine.errors import BadOption
from machine.flags import option


@dataclass(frozen=True, slots=True)
class GenericConfig:
    ip_address: str = option(
        "",
        "address or name of the host, or of an entry in your ssh config",
        env=("GENERIC_IP_ADDRESS",),
        metavar="HOST",
    )
    ssh_user: str = option(
        "", "user to log in as; default: your ssh config's, else root", env=("GENERIC_SSH_USER",)
    )
    ssh_key: str = option(
        "",
        "private key, which stays where it is; default: your agent's keys and your ssh's own",
        env=("GENERIC_SSH_KEY",),
        metavar="FILE",
    )
    ssh_agent: bool = option(False, "try your agent's keys too, before the given one")
    ssh_passphrase: str = option(
        "", "where the key's passphrase is; default: you are asked", secret=True, metavar="SECRET"
    )
    ssh_port: int | None = option(
        None, "port of sshd", env=("GENERIC_SSH_PORT",), low=1, high=65535, metavar="PORT"
    )
    ssh_config: str = option(
        "", "your ssh config, which may have an entry for it; default: ssh's own", metavar="FILE"
    )
    ssh_jump: str = option(
        "", "hosts to go through, as ssh -J takes them", metavar="[USER@]HOST[:PORT][,...]"
    )
    host_key: str = option(
        "",
        "its public host key, or the fingerprint of it; default: your known_hosts, or you are asked",
        metavar="SHA256:...",
    )
    sudo_password: str = option(
        "", "where the password for sudo is; default: you are asked", secret=True, metavar="SECRET"
    )
    engine_port: int = option(
        2376,
        "port that the engine listens on",
        env=("GENERIC_ENGINE_PORT",),
        low=1,
        high=65535,
        metavar="PORT",
    )
    tls_folder: str = option(
        "",
        "with --register: folder with the ca.pem, cert.pem and key.pem that its engine is asked with",
        metavar="FOLDER",
    )

    def __post_init__(self) -> None:
        if not self.ip_address:
            raise BadOption(
                "The generic driver needs to know which host", hint="--generic-ip-address HOST"
            )


@dataclass(frozen=True, slots=True)
class GenericFacts:
    known: bool = False
    host: str = ""
    ssh_port: int = 22
    user: str = "root"
    keys: tuple[str, ...] = ()
    agent: bool = False
    jump: str = ""
    host_key: str = ""  # public, as the user took it for right
    tunnel_port: int = 0  # of this computer, where the engine is reached through ``jump``
