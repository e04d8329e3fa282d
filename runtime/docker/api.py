"""One question to an engine's API, by the standard library alone: `ls` asks every machine."""

from __future__ import annotations

import http.client
import json
import ssl

from machine.errors import EngineUnreachable
from machine.model import Address, EngineInfo, TlsFiles


def version(address: Address, tls: TlsFiles, *, timeout: float) -> EngineInfo:
    """GET /version over mutual TLS. Raises EngineUnreachable, which tells a refused connection
    from one that timed out and from a certificate that does not fit."""
    where = f"{address.host}:{address.engine_port}"
    try:
        context = ssl.create_default_context(cafile=str(tls.ca))
        context.load_cert_chain(str(tls.cert), str(tls.key))
    except (OSError, ssl.SSLError) as exc:
        raise EngineUnreachable(
            "The machine's client certificate cannot be used",
            details=str(exc),
            hint="machine regenerate-certs",
        ) from exc
    connection = http.client.HTTPSConnection(
        address.host, address.engine_port, timeout=timeout, context=context
    )
    try:
        connection.request("GET", "/version")
        response = connection.getresponse()
        answer = json.loads(response.read())
        return EngineInfo(answer["Version"], answer.get("ApiVersion", ""))
    except ssl.SSLCertVerificationError as exc:
        raise EngineUnreachable(
            f"The engine at {where} has a certificate that does not fit: {exc.verify_message}",
            hint="machine regenerate-certs",
        ) from exc
    except ssl.SSLError as exc:
        raise EngineUnreachable(
            f"The engine at {where} refuses our certificate", details=str(exc)
        ) from exc
    except TimeoutError as exc:
        raise EngineUnreachable(f"The engine at {where} did not answer in time") from exc
    except OSError as exc:
        raise EngineUnreachable(
            f"The engine at {where} cannot be reached: {exc.strerror or exc}"
        ) from exc
    except (http.client.HTTPException, ValueError, KeyError, TypeError) as exc:
        raise EngineUnreachable(f"What answers at {where} is no Docker engine") from exc
    finally:
        connection.close()
