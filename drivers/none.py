"""An engine that is there already: nothing is made, nobody logs in, only its URL is known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Final
from urllib.parse import urlsplit

from machine.driver import Driver
from machine.errors import BadOption
from machine.flags import option
from machine.model import Address, Source, State, VmSpec

PORT: Final = 2376
"""Where an engine listens with TLS, unless the URL says otherwise."""


@dataclass(frozen=True, slots=True)
class NoneConfig:
    url: str = option("", "the engine's URL, tcp://HOST:PORT", flag="--url", metavar="URL")
    tls_folder: str = option(
        "",
        "folder with the ca.pem, cert.pem and key.pem that it is asked with",
        metavar="FOLDER",
    )

    def __post_init__(self) -> None:
        if not self.url:
            raise BadOption("The none driver needs the engine's URL", hint="--url tcp://HOST:2376")
        parse(self.url)


@dataclass(frozen=True, slots=True)
class NoneFacts:
    known: bool = False


class NoneDriver(Driver[NoneConfig, NoneFacts]):
    """As docker-machine's: always running, and no verb does anything. With a folder of certificates
    ``env`` and ``config`` work as well."""

    name: ClassVar[str] = "none"
    source: ClassVar[Source] = Source.ENGINE
    config_type: ClassVar[type[NoneConfig]] = NoneConfig
    facts_type: ClassVar[type[NoneFacts]] = NoneFacts

    def create(self, spec: VmSpec) -> None:
        self.save(replace(self.facts, known=True))

    def state(self) -> State:
        return State.RUNNING if self.facts.known else State.MISSING

    def address(self) -> Address:
        host, port = parse(self.config.url)
        return Address(host, engine_port=port)

    def remove(self) -> None:
        self.save(replace(self.facts, known=False))


def parse(url: str) -> tuple[str, int]:
    """Host and port of tcp://HOST:PORT; scheme and port may be left out, as docker-machine's users
    do. Raises BadOption."""
    parts = urlsplit(url if "://" in url else f"tcp://{url}")
    try:
        port = parts.port
    except ValueError as exc:
        raise BadOption(f"--url is {url!r}: {exc}") from exc
    if parts.scheme not in ("tcp", "https") or not parts.hostname:
        raise BadOption(
            f"--url is {url!r}, and must be tcp://HOST:PORT",
            hint="An engine without a network address needs no machine: docker context create",
        )
    return parts.hostname, port or PORT
