"""The engine's API by Docker's own library, with what goes wrong said in our words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from machine.errors import EngineError, EngineUnreachable
from machine.model import Address, TlsFiles
from machine.runtime.docker import api

if TYPE_CHECKING:
    from docker import APIClient


@contextmanager
def connected(address: Address, tls: TlsFiles, *, timeout: float) -> Iterator[APIClient]:
    """A client in the engine's own version of the API; ``timeout`` is seconds that one answer, or
    one piece of a stream, may take. Where it is left, errors of the library are ``said``."""
    from docker import APIClient
    from docker import tls as docker_tls

    from machine.runtime.docker.session import Adapter

    told = api.version(address, tls, timeout=timeout)
    url = f"https://{address.engine_at}:{address.engine_port}"
    with said(url):
        settings = docker_tls.TLSConfig(
            client_cert=(str(tls.cert), str(tls.key)), ca_cert=str(tls.ca), verify=True
        )
        client = APIClient(url, version=told.api_version, timeout=int(timeout) or 1, tls=settings)
        # Or REQUESTS_CA_BUNDLE would stand for our authority, and a proxy between us.
        client.trust_env = False
        client.mount("https://", Adapter())
        try:
            yield client
        finally:
            client.close()


@contextmanager
def said(url: str) -> Iterator[None]:
    """Errors of the library are EngineError and EngineUnreachable outside of it."""
    import requests
    from docker import errors

    at = url.rpartition("/")[2]
    try:
        yield
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


class Saying:
    """A client whose every call raises what is ``said``."""

    def __init__(self, client: APIClient) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)

        def call(*words: Any, **named: Any) -> Any:
            with said(self._client.base_url):
                return method(*words, **named)

        return call
