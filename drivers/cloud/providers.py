"""The providers: a row each, and a function where a row is not enough."""

from __future__ import annotations

import os
import secrets as random
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from machine.drivers.cloud import api
from machine.drivers.cloud.config import (
    DigitalOceanConfig,
    GoogleConfig,
    LinodeConfig,
    OpenStackConfig,
    VultrConfig,
)
from machine.drivers.cloud.driver import CloudDriver
from machine.drivers.cloud.provider import MARK, Order, Provider, tag, tagged
from machine.errors import PreflightError

_OWN_KEY: Final = "each machine has a key of its own, in its user-data"
_PORT: Final = "SSH is at its usual port"
FIREWALL: Final = "docker-machines"
"""docker-machine's own name for the rule, and for the network tag that it applies to."""
FIREWALL_TAG: Final = "docker-machine"


def _digitalocean(config: DigitalOceanConfig, order: Order) -> Mapping[str, Any]:
    return {
        "location": order.location,
        "ex_user_data": order.user_data,
        "ex_create_attr": {
            "tags": [tag(order), *config.tags],
            "ipv6": config.ipv6,
            "private_networking": config.private_networking,
            "backups": config.backups,
        },
    }


class DigitalOcean(CloudDriver):
    name: ClassVar[str] = "digitalocean"
    config_type: ClassVar[type[Any]] = DigitalOceanConfig
    ignored: ClassVar[Mapping[str, str]] = {
        "--digitalocean-ssh-key-fingerprint FINGERPRINT": _OWN_KEY,
        "--digitalocean-ssh-key-path PATH": _OWN_KEY,
        "--digitalocean-ssh-port PORT": _PORT,
    }
    provider: ClassVar[Provider] = Provider(
        title="DigitalOcean",
        connect=lambda config, given: api.point(
            api.load("digitalocean", given["access_token"]), config.endpoint
        ),
        order=_digitalocean,
        mark=lambda node: tagged(node.extra.get("tags")),
        by_hand="doctl compute droplet delete {id}",
        start=lambda made, node: made.ex_power_on_node(node),
        stop=lambda made, node: made.ex_shutdown_node(node),
        size_name=lambda node: str(node.extra.get("size_slug")),
        price_per="hour",
        needs=("access_token",),
    )


def _vultr(config: VultrConfig, order: Order) -> Mapping[str, Any]:
    return {
        "location": order.location,
        "ex_userdata": order.user_data,
        "ex_tag": tag(order),
        "ex_hostname": order.name,
        "ex_enable_ipv6": config.ipv6,
        "ex_backups": config.backups,
        "ex_firewall_group_id": config.firewall_group_id or None,
    }


class Vultr(CloudDriver):
    name: ClassVar[str] = "vultr"
    config_type: ClassVar[type[Any]] = VultrConfig
    provider: ClassVar[Provider] = Provider(
        title="Vultr",
        connect=lambda config, given: api.point(
            api.load("vultr", given["api_key"], api_version="2"), config.endpoint
        ),
        order=_vultr,
        mark=lambda node: tagged([node.extra.get("tag")]),
        by_hand="vultr-cli instance delete {id}",
        nodes=lambda made: list(made.list_nodes(ex_list_bare_metals=False)),
        sizes=lambda made, _: list(made.list_sizes(ex_list_bare_metals=False)),
        price_per="month",
        needs=("api_key",),
    )


def _linode(config: LinodeConfig, order: Order) -> Mapping[str, Any]:
    """Linode wants a password for root, which nobody is told and user-data turns off."""
    return {
        "location": order.location,
        "root_pass": random.token_urlsafe(32),
        "ex_userdata": order.user_data,
        "ex_tags": [tag(order), *config.tags],
        "ex_private_ip": config.private_ip,
    }


class Linode(CloudDriver):
    name: ClassVar[str] = "linode"
    config_type: ClassVar[type[Any]] = LinodeConfig
    ignored: ClassVar[Mapping[str, str]] = {
        "--linode-root-pass PASSWORD": "nobody logs in as root, and not by password",
        "--linode-authorized-users USERS": _OWN_KEY,
        "--linode-ssh-port PORT": _PORT,
    }
    provider: ClassVar[Provider] = Provider(
        title="Linode",
        connect=lambda config, given: api.point(
            api.load("linode", given["token"], api_version="4.0"), config.endpoint
        ),
        order=_linode,
        mark=lambda node: tagged(node.extra.get("tags")),
        by_hand="linode-cli linodes delete {id}",
        sizes=lambda made, _: list(made.list_sizes()),
        price_per="hour",
        needs=("token",),
    )


def _connect_openstack(config: OpenStackConfig, given: Mapping[str, str]) -> Any:
    return api.load(
        "openstack",
        config.username,
        given["password"],
        api_version="2.2",
        ex_force_auth_url=config.auth_url.rstrip("/").removesuffix("/v3"),  # libcloud adds it
        ex_force_auth_version="3.x_password",
        ex_force_service_region=config.region,
        ex_tenant_name=config.tenant_name,
        ex_domain_name=config.domain_name,
    )


def _openstack(config: OpenStackConfig, order: Order) -> Mapping[str, Any]:
    ask: dict[str, Any] = {
        "ex_userdata": order.user_data,
        "ex_metadata": {MARK: order.id},
        "ex_config_drive": config.config_drive,
    }
    if config.availability_zone:
        ask["ex_availability_zone"] = config.availability_zone
    if config.sec_groups:
        ask["ex_security_groups"] = [_Named(name) for name in config.sec_groups]
    if order.location is not None:
        ask["networks"] = [order.location]
    return ask


class _Named:
    """What libcloud asks of a security group."""

    def __init__(self, name: str) -> None:
        self.name = name


def _network(made: Any, config: OpenStackConfig) -> Any:
    """OpenStack's place for a node is its network."""
    if not config.net_name:
        return None
    for each in made.ex_list_networks():
        if config.net_name in (each.id, each.name):
            return each
    raise PreflightError(
        f"OpenStack has no network {config.net_name!r}", hint="openstack network list"
    )


def _resized(made: Any, node: Any) -> bool:
    """OpenStack keeps what a node was until somebody says that the new size is right."""
    waits = node.extra.get("vm_state") == "resized"
    if waits:
        made.ex_confirm_resize(node)
    return not waits


class OpenStack(CloudDriver):
    name: ClassVar[str] = "openstack"
    config_type: ClassVar[type[Any]] = OpenStackConfig
    ignored: ClassVar[Mapping[str, str]] = {
        "--openstack-keypair-name NAME": _OWN_KEY,
        "--openstack-private-key-file PATH": _OWN_KEY,
        "--openstack-ssh-port PORT": _PORT,
        "--openstack-ip-version VERSION": "machines are reached by IPv4",
        "--openstack-active-timeout SECONDS": "ten minutes are waited for",
        "--openstack-floatingip-pool NAME": "libcloud's driver for it is not used: choose a network "
        "whose addresses can be reached from here",
    }
    provider: ClassVar[Provider] = Provider(
        title="OpenStack",
        connect=_connect_openstack,
        order=_openstack,
        mark=lambda node: str(node.extra.get("metadata", {}).get(MARK, "")),
        by_hand="openstack server delete {id}",
        location=_network,
        resize=lambda made, node, size: made.ex_resize(node, size),
        resized=_resized,
        size_name=lambda node: str(node.extra.get("flavorId")),
        needs=("auth_url", "username", "password", "tenant_name"),
    )


def _connect_google(config: GoogleConfig, given: Mapping[str, str]) -> Any:
    """The key is a JSON text, which libcloud takes as it is. Its token goes into no file."""
    import json

    try:
        account = json.loads(given["credentials"])["client_email"]
    except (ValueError, KeyError, TypeError):
        raise PreflightError(
            "The credentials of google are no service account's key",
            hint="gcloud iam service-accounts keys create key.json --iam-account ACCOUNT\n"
            "--google-credentials file:key.json",
        ) from None
    made = api.load(
        "gce",
        account,
        given["credentials"],
        project=config.project,
        credential_file=os.devnull,
    )
    return api.point(made, config.endpoint)


def _google(config: GoogleConfig, order: Order) -> Mapping[str, Any]:
    return {
        "location": order.location,
        "ex_network": config.network,
        "ex_subnetwork": config.subnetwork or None,
        "ex_tags": [FIREWALL_TAG, *config.tags],
        "ex_metadata": {"items": [{"key": "user-data", "value": order.user_data}]},
        "ex_labels": {MARK: order.id},
        "ex_disk_type": config.disk_type,
        "ex_disk_size": order.disk_gib,
        "external_ip": None if config.use_internal_ip_only else "ephemeral",
        "ex_preemptible": config.preemptible or None,
    }


def _google_image(made: Any, config: GoogleConfig) -> Any:
    """As docker-machine names one: PROJECT/global/images/NAME, or .../family/NAME."""
    project, _, rest = config.image.partition("/global/images/")
    if not rest:
        return made.ex_get_image(config.image)
    if rest.startswith("family/"):
        family = rest.removeprefix("family/")
        return made.ex_get_image_from_family(family, ex_project_list=[project])
    return made.ex_get_image(rest, ex_project_list=[project])


def _firewall(made: Any, config: GoogleConfig, order: Order) -> None:
    """One rule for all machines, as docker-machine makes it; ports are added to it."""
    ports = ["22", str(order.engine_port), *(each.partition("/")[0] for each in config.open_port)]
    rule = next((each for each in made.ex_list_firewalls() if each.name == FIREWALL), None)
    if rule is None:
        made.ex_create_firewall(
            FIREWALL,
            [{"IPProtocol": "tcp", "ports": ports}],
            network=config.network,
            source_ranges=["0.0.0.0/0"],
            target_tags=[FIREWALL_TAG],
        )
        return
    opened = {port for each in rule.allowed for port in each.get("ports", ())}
    if missing := [port for port in ports if port not in opened]:
        rule.allowed = [*rule.allowed, {"IPProtocol": "tcp", "ports": missing}]
        made.ex_update_firewall(rule)


def _no_firewall(made: Any, config: GoogleConfig) -> None:
    """With the last machine that it is for."""
    if any(FIREWALL_TAG in (node.extra.get("tags") or ()) for node in _google_nodes(made)):
        return
    for each in made.ex_list_firewalls():
        if each.name == FIREWALL:
            made.ex_destroy_firewall(each)


def _google_nodes(made: Any) -> list[Any]:
    return list(made.list_nodes(ex_zone="all"))


class Google(CloudDriver):
    name: ClassVar[str] = "google"
    config_type: ClassVar[type[Any]] = GoogleConfig
    ignored: ClassVar[Mapping[str, str]] = {
        "--google-scopes SCOPES": "an instance gets no rights of the account",
        "--google-service-account EMAIL": "an instance gets no rights of the account",
        "--google-address ADDRESS": "machines have addresses of their own",
        "--google-use-existing": "a host that is there already is what the generic driver is for",
    }
    provider: ClassVar[Provider] = Provider(
        title="Google Compute Engine",
        connect=_connect_google,
        order=_google,
        mark=lambda node: str((node.extra.get("labels") or {}).get(MARK, "")),
        by_hand="gcloud compute instances delete {name}",
        nodes=_google_nodes,
        place="zone",
        image=_google_image,
        start=lambda made, node: made.ex_start_node(node, sync=False),
        stop=lambda made, node: made.ex_stop_node(node, sync=False),
        resize=lambda made, node, size: made.ex_set_machine_type(node, size.name),
        price_per="hour",
        prepare=_firewall,
        clean=_no_firewall,
        needs=("project", "credentials"),
    )
