"""What is on an engine now, for a screen that asks again and again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from machine.model import Standing
from machine.runtime.docker.swarm import membership

if TYPE_CHECKING:
    from docker import APIClient

    from machine.swarm import Membership


def standing(client: APIClient) -> Standing:
    """GET /info: for each of its answers dockerd runs two programs (runc and docker-init, for their
    versions: daemon/info_unix.go)."""
    told = client.info()
    return Standing(told.get("ServerVersion", ""), _role(client, membership(told)))


def containers(client: APIClient) -> Mapping[str, str]:
    """GET /containers/json, which dockerd answers from its memory."""
    found = client.containers(all=True)
    return {_name(each): each.get("State", "") for each in found}


def _role(client: APIClient, member: Membership) -> str:
    from docker import errors

    if not member.is_in:
        return ""
    if not member.is_manager:
        return member.role or member.state if member.state == "active" else member.state
    try:
        node = client.inspect_node(member.node)
    except errors.APIError:  # managers without a quorum know no leader
        return "manager"
    return "leader" if (node.get("ManagerStatus") or {}).get("Leader") else "manager"


def _name(container: Mapping[str, object]) -> str:
    """Its own: those of links to it have a second slash."""
    names = container.get("Names") or []
    assert isinstance(names, list)
    own = [name[1:] for name in names if name.count("/") == 1]
    return own[0] if own else str(container.get("Id"))[:12]
