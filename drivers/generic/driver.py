"""A host that is there already, with SSH: nothing of it is made, and nothing of it is removed."""

from __future__ import annotations

import functools
import socket
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Final, Self

from machine import forward, secret, ssh
from machine.driver import Driver
from machine.drivers.generic import resolve, tunnel
from machine.drivers.generic.config import GenericConfig, GenericFacts
from machine.errors import DriverError, GuestUnreachable, PreflightError, SecretMissing
from machine.model import Address, Login, Sighting, Source, State, VmSpec
from machine.redaction import remember

PATIENCE: Final = 5.0
"""Seconds for sshd to say that it is one."""


class GenericDriver(Driver[GenericConfig, GenericFacts]):
    name: ClassVar[str] = "generic"
    source: ClassVar[Source] = Source.HOST
    config_type: ClassVar[type[GenericConfig]] = GenericConfig
    facts_type: ClassVar[type[GenericFacts]] = GenericFacts

    def preflight(self) -> None:
        entry = resolve.ssh_entry(self.config)
        facts = resolve.facts(self.config, self.facts, entry)
        where = Address(facts.host, facts.ssh_port)
        trusted = self._trusted(where, resolve.known_hosts(entry))
        try:
            kinds = [key.split()[0] for key in trusted]
            shown = ssh.host_key(
                where, jump=facts.jump, config=self.config.ssh_config, kinds=kinds, timeout=20
            )
        except GuestUnreachable as exc:
            raise PreflightError(
                exc.brief,
                details=exc.details,
                hint="Is it the right address and port, and does sshd run there? "
                "--generic-ip-address, --generic-ssh-port",
            ) from exc
        self._compare(where, shown, trusted)
        self.save(replace(facts, host_key=shown))

    def reserve(self, engine_port: int) -> Address:
        if self.facts.jump and not self.facts.tunnel_port:
            self.save(replace(self.facts, tunnel_port=forward.free_port()))
        return self.address()

    def create(self, spec: VmSpec) -> None:
        self.save(replace(self.facts, known=True))

    def login(self, ours: Login) -> Login:
        facts = self.facts
        return Login(
            user=facts.user,
            known_hosts=ours.known_hosts,
            keys=tuple(Path(key) for key in facts.keys),
            agent=facts.agent,
            jump=facts.jump,
            config=self.config.ssh_config,
            passphrase=self._passphrase,
            sudo_password=self._sudo_password,
        )

    def host_key(self) -> str:
        return self.facts.host_key

    def connect(self) -> None:
        facts = self.facts
        if not facts.jump or tunnel.is_open(self.host.id):
            return
        there = Address(facts.host, facts.ssh_port)
        login = self.login(Login(facts.user, self.host.folder / "known_hosts"))
        port = facts.tunnel_port
        while not tunnel.open_(self.host.id, there, login, port, self.config.engine_port):
            port = forward.free_port()
        self.save(replace(facts, tunnel_port=port))

    def state(self) -> State:
        """Running where something says that it is sshd; else it is not known, for nobody but the
        host itself could tell."""
        return self._sight().state

    def address(self) -> Address:
        facts = self.facts
        if not facts.host:
            raise DriverError(f'"{self.host.name}" has no address yet')
        if facts.jump:
            return Address(facts.host, facts.ssh_port, facts.tunnel_port, engine_host="127.0.0.1")
        return Address(facts.host, facts.ssh_port, self.config.engine_port)

    def remove(self) -> None:
        tunnel.close(self.host.id)
        self.save(replace(self.facts, known=False))

    def explain(self) -> str:
        return self._sight().problem

    @classmethod
    def survey(cls, drivers: Sequence[Self]) -> Mapping[str, Sighting]:
        """All at once: a host that is down costs its own wait only."""
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(max_workers=min(len(drivers), 64) or 1) as pool:
            seen = pool.map(lambda driver: driver._sight(), drivers)
        return {driver.host.name: each for driver, each in zip(drivers, seen, strict=True)}

    def _sight(self) -> Sighting:
        facts = self.facts
        if not facts.known:
            return Sighting(State.MISSING)
        where = Address(facts.host, facts.ssh_port)
        try:
            if not facts.jump:
                _greet(where)
            elif not tunnel.is_open(self.host.id):
                config = self.config.ssh_config
                ssh.host_key(where, jump=facts.jump, config=config, timeout=PATIENCE)
        except (OSError, GuestUnreachable) as exc:
            problem = f"No SSH at {where.host} port {where.ssh_port}: {exc}"
            return Sighting(State.UNKNOWN, problem=problem)
        return Sighting(State.RUNNING, self.address())

    def _trusted(self, where: Address, files: Sequence[Path]) -> list[str]:
        """Public keys that the user has said to be the host's: here, or to ssh, which keeps them in
        these files."""
        given = self.config.host_key
        if given and not given.startswith("SHA256:"):
            return [given]
        if given:
            return []
        named = replace(where, host=self.config.ip_address)
        return ssh.known_keys(files, where) + ssh.known_keys(files, named)

    def _compare(self, where: Address, shown: str, trusted: Sequence[str]) -> None:
        """Raises PreflightError unless the key is one that the user takes for right."""
        kind, mark = shown.split()[0], ssh.fingerprint(shown)
        marks = [ssh.fingerprint(key) for key in trusted]
        if given := self.config.host_key:
            marks = [given] if given.startswith("SHA256:") else marks
        elif self.facts.host_key == shown:
            return  # taken for right before this create was cut off
        place = f"{where.host} port {where.ssh_port}"
        if mark in marks:
            return
        if marks:
            raise PreflightError(
                f"The host at {place} has another key than it should have",
                details=f"Expected {' or '.join(sorted(set(marks)))}\nGot      {mark} ({kind})",
                hint="Something else may answer at that address. Nothing was sent to it.",
            )
        said = self.report.confirm(
            f"The host at {place} is not known yet. Its key is {mark} ({kind}). Is that right?"
        )
        if not said:
            raise PreflightError(
                f"The host at {place} is not known, and its key was not confirmed",
                details=f"It shows {mark} ({kind}).",
                hint="Look at it on the host itself: ssh-keygen -lf "
                f"/etc/ssh/ssh_host_{kind.split('-')[-1]}_key.pub\n"
                "If it is the same: --generic-host-key SHA256:...",
            )

    @functools.cached_property
    def _secrets(self) -> dict[str, str]:
        """What was asked for, once in a process."""
        return {}

    def _passphrase(self) -> str:
        return self._secret(
            secret.or_variable(self.config.ssh_passphrase, "MACHINE_GENERIC_SSH_PASSPHRASE"),
            f"Passphrase of {self.facts.keys[0]}",
            "Put the key into your agent (ssh-add), or name a secret: --generic-ssh-passphrase "
            "env:NAME",
        )

    def _sudo_password(self) -> str:
        return self._secret(
            secret.or_variable(self.config.sudo_password, "MACHINE_GENERIC_SUDO_PASSWORD"),
            f"Password of {self.facts.user} for sudo on {self.facts.host}",
            "Name a secret: --generic-sudo-password env:NAME, file:PATH or command:WORDS",
        )

    def _secret(self, reference: str, question: str, hint: str) -> str:
        if reference:
            return secret.resolve(reference)
        if question not in self._secrets:
            answer = self.report.ask(question, hidden=True)
            if answer is None:
                raise SecretMissing(f"{question}: there is nobody to ask", hint=hint)
            self._secrets[question] = remember(answer)
        return self._secrets[question]


def _greet(where: Address) -> None:
    """Raises OSError unless the first words at an address are those of an SSH server (RFC 4253,
    4.2: lines of others may come before)."""
    at = (where.host, where.ssh_port)
    with socket.create_connection(at, timeout=PATIENCE) as connection:
        connection.settimeout(PATIENCE)
        if b"SSH-" not in connection.recv(256):
            raise OSError("something else answers there")
