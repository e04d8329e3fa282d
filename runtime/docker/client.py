"""The engine's API by Docker's own library, with what goes wrong said in our words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from machine.errors import EngineError, EngineUnreachable
from machine.model import Address, TlsFiles
from machine.runtime.docker import api

if TYPE_CHECKING:
    from docker import APIClient


@contextmanager
def connected(address: Address, tls: TlsFiles, *, timeout: float) -> Iterator[APIClient]:
    """A client in the engine's own version of the API; ``timeout`` is seconds that one answer, or
    one piece of a stream, may take. While it is open, errors of the library are raised as
    EngineUnreachable and EngineError."""
    import requests
    from docker import APIClient, errors
    from docker import tls as docker_tls

    from machine.runtime.docker.session import Adapter

    told = api.version(address, tls, timeout=timeout)
    at = f"{address.engine_at}:{address.engine_port}"
    try:
        settings = docker_tls.TLSConfig(
            client_cert=(str(tls.cert), str(tls.key)), ca_cert=str(tls.ca), verify=True
        )
        client = APIClient(
            f"https://{at}", version=told.api_version, timeout=int(timeout) or 1, tls=settings
        )
        # Or REQUESTS_CA_BUNDLE would stand for our authority, and a proxy between us.
        client.trust_env = False
        client.mount("https://", Adapter())
        try:
            yield client
        finally:
            client.close()
    except errors.APIError as exc:
        raise EngineError(f"The engine at {at} refused: {exc.explanation or exc}") from exc
    except errors.TLSParameterError as exc:
        raise EngineUnreachable(
            "The machine's client certificate cannot be used",
            details=str(exc),
            hint="machine regenerate-certs",
        ) from exc
    except (errors.DockerException, requests.RequestException) as exc:
        raise EngineUnreachable(f"The engine at {at} cannot be reached", details=str(exc)) from exc
