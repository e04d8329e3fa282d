"""Azure's row. libcloud's create_node hands user-data over as bytes that JSON does not take, and its
public addresses are of a kind that Azure does not give out any more: a node is made by one request
of ours here, with its disk, card and address, which go when it goes."""

from __future__ import annotations

import base64
import secrets as random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Final

from machine.drivers.cloud import api
from machine.drivers.cloud.config import AzureConfig
from machine.drivers.cloud.driver import CloudDriver
from machine.drivers.cloud.provider import MARK, Order, Provider
from machine.errors import PreflightError

ENVIRONMENTS: Final = {
    "AzurePublicCloud": "default",
    "AzureUSGovernmentCloud": "AzureUSGovernment",
    "AzureChinaCloud": "AzureChinaCloud",
}
"""docker-machine's names, and libcloud's."""
SHARED: Final = "machine-shared"
"""Tag of what all machines of a resource group use and we made."""
SECURITY_GROUP: Final = "docker-machine"
USER: Final = "azureuser"
"""Azure wants an account with a password, which nobody is told; user-data makes no such account."""
_GROUP_API, _NETWORK_API, _VM_API = "2021-04-01", "2020-11-01", "2021-11-01"


def _connect(config: AzureConfig, given: Mapping[str, str]) -> Any:
    made = api.load(
        "azure_arm",
        tenant_id=config.tenant_id,
        subscription_id=config.subscription_id,
        key=config.client_id,
        secret=given["client_secret"],
        cloud_environment=ENVIRONMENTS[config.environment],
    )
    return api.point(made, config.endpoint)


def _group(made: Any, config: AzureConfig) -> str:
    return f"/subscriptions/{made.subscription_id}/resourceGroups/{config.resource_group}"


def _network(made: Any, config: AzureConfig, kind: str, name: str) -> str:
    return f"{_group(made, config)}/providers/Microsoft.Network/{kind}/{name}"


def _call(made: Any, method: str, path: str, version: str, data: Any = None) -> Any:
    asked = made.connection.request(path, {"api-version": version}, data=data, method=method)
    return asked.object


def _find(ask: Callable[[], Any]) -> Any | None:
    """None for what is not there."""
    from libcloud.common.exceptions import BaseHTTPError

    try:
        return ask()
    except BaseHTTPError as exc:
        if exc.code == 404:
            return None
        raise


def _get(made: Any, path: str, version: str) -> Any | None:
    return _find(lambda: _call(made, "GET", path, version))


@dataclass(frozen=True, slots=True)
class _Image:
    id: str
    publisher: str
    offer: str
    sku: str
    version: str


def _image(made: Any, config: AzureConfig) -> Any:
    """A publisher's; "latest" is whatever that is when a node is made."""
    words = config.image.split(":")
    if len(words) != 4:
        raise PreflightError(
            f"{config.image!r} is no image of Azure's",
            hint="--azure-image PUBLISHER:OFFER:SKU:VERSION, as: az vm image list --all",
        )
    publisher, offer, sku, version = words
    place = f"/subscriptions/{made.subscription_id}/providers/Microsoft.Compute/locations"
    path = f"{place}/{config.location}/publishers/{publisher}/artifacttypes/vmimage"
    there = [name for _, name in made.ex_list_image_versions(f"{path}/offers/{offer}/skus/{sku}")]
    if not there or version not in ("latest", *there):
        raise PreflightError(f"Azure has no image {config.image!r} in {config.location}")
    return _Image(config.image, publisher, offer, sku, version)


def _prepare(made: Any, config: AzureConfig, order: Order) -> None:
    """What machines of a resource group share: it, its network, and the rules for its ports. What is
    there is used as it is, but for the rules of ours."""
    ours = {"location": order.location.id, "tags": {SHARED: "yes"}}
    group = _group(made, config)
    if _get(made, group, _GROUP_API) is None:
        _call(made, "PUT", group, _GROUP_API, ours)
    network = _network(made, config, "virtualNetworks", config.vnet)
    if _get(made, network, _NETWORK_API) is None:
        subnet = {"name": config.subnet, "properties": {"addressPrefix": config.subnet_prefix}}
        space = {"addressPrefixes": [config.subnet_prefix]}
        properties = {"addressSpace": space, "subnets": [subnet]}
        _call(made, "PUT", network, _NETWORK_API, {**ours, "properties": properties})
    _open_ports(made, config, ours, order.engine_port)


def _open_ports(made: Any, config: AzureConfig, ours: Mapping[str, Any], engine_port: int) -> None:
    """As docker-machine does; ports are added to it."""
    path = _network(made, config, "networkSecurityGroups", SECURITY_GROUP)
    found = _get(made, path, _NETWORK_API)
    rules = list(found["properties"].get("securityRules", ())) if found else []
    opened = {rule["properties"].get("destinationPortRange") for rule in rules}
    ports = ["22", str(engine_port), *(each.partition("/")[0] for each in config.open_port)]
    missing = [port for port in dict.fromkeys(ports) if port not in opened]
    if found and not missing:
        return
    free = max((rule["properties"]["priority"] for rule in rules), default=99) + 1
    rules += [_rule(port, priority) for priority, port in enumerate(missing, free)]
    _call(made, "PUT", path, _NETWORK_API, {**ours, "properties": {"securityRules": rules}})


def _rule(port: str, priority: int) -> dict[str, Any]:
    return {
        "name": f"port-{port}",
        "properties": {
            "priority": priority,
            "direction": "Inbound",
            "access": "Allow",
            "protocol": "Tcp",
            "sourceAddressPrefix": "*",
            "sourcePortRange": "*",
            "destinationAddressPrefix": "*",
            "destinationPortRange": port,
        },
    }


def _make(made: Any, config: AzureConfig, order: Order) -> Any:
    """A request that is made again for a node that is there changes nothing of it."""
    path = f"{_group(made, config)}/providers/Microsoft.Compute/virtualMachines/{order.name}"
    image = order.image
    request = {
        "location": order.location.id,
        "tags": {MARK: order.id},
        "properties": {
            "hardwareProfile": {"vmSize": order.size.id},
            "storageProfile": {
                "imageReference": {
                    key: getattr(image, key) for key in ("publisher", "offer", "sku", "version")
                },
                "osDisk": {
                    "createOption": "FromImage",
                    "deleteOption": "Delete",
                    "diskSizeGB": max(order.disk_gib, 30),
                    "managedDisk": {"storageAccountType": config.storage_type},
                },
            },
            "osProfile": {
                "computerName": order.name,
                "customData": base64.b64encode(order.user_data.encode()).decode(),
                "adminUsername": USER,
                "adminPassword": f"aA1-{random.token_urlsafe(32)}",
            },
            "networkProfile": {
                "networkApiVersion": _NETWORK_API,
                "networkInterfaceConfigurations": [_card(made, config, order.name)],
            },
        },
    }
    return _Made(_call(made, "PUT", path, _VM_API, request)["id"])


class _Made:
    """All that is known of a node whose card is not there yet."""

    def __init__(self, identifier: str) -> None:
        self.id = identifier


def _card(made: Any, config: AzureConfig, name: str) -> dict[str, Any]:
    network = _network(made, config, "virtualNetworks", config.vnet)
    address: dict[str, Any] = {"subnet": {"id": f"{network}/subnets/{config.subnet}"}}
    if not config.no_public_ip:
        address["publicIPAddressConfiguration"] = {
            "name": name,
            "sku": {"name": "Standard"},
            "properties": {"deleteOption": "Delete", "publicIPAllocationMethod": "Static"},
        }
    rules = _network(made, config, "networkSecurityGroups", SECURITY_GROUP)
    return {
        "name": name,
        "properties": {
            "primary": True,
            "deleteOption": "Delete",
            "networkSecurityGroup": {"id": rules},
            "ipConfigurations": [{"name": name, "properties": address}],
        },
    }


def _nodes(made: Any) -> list[Any]:
    """Addresses and states, which are questions of their own, only of those that are ours. One that
    is being removed is there until its card is gone too."""
    every = made.list_nodes(ex_fetch_nic=False, ex_fetch_power_state=False)
    ours = [_find(partial(made.ex_get_node, node.id)) for node in every if _mark(node)]
    there = [node for node in ours if node is not None]
    for node in there:
        if str(node.state) == "terminated":
            node.state = "stopping"
    return there


def _mark(node: Any) -> str:
    return str((node.extra.get("tags") or {}).get(MARK, ""))


def _clean(made: Any, config: AzureConfig) -> None:
    """With the last machine of the resource group, and only what we made and nobody else uses."""
    group = _group(made, config)
    if any(node.id.casefold().startswith(f"{group}/".casefold()) for node in _nodes(made)):
        return
    for kind, name in (
        ("networkSecurityGroups", SECURITY_GROUP),
        ("virtualNetworks", config.vnet),
    ):
        _remove(made, _network(made, config, kind, name), _NETWORK_API)
    left = _get(made, f"{group}/resources", _GROUP_API)
    if left is not None and not left["value"]:
        _remove(made, group, _GROUP_API)


def _remove(made: Any, path: str, version: str) -> None:
    """If it is ours; Azure itself refuses to remove what something is attached to."""
    from libcloud.common.exceptions import BaseHTTPError

    found = _get(made, path, version)
    if found is None or SHARED not in (found.get("tags") or {}):
        return
    try:
        _call(made, "DELETE", path, version)
    except BaseHTTPError as exc:
        if "inuse" not in str(exc).casefold():
            raise


def _destroy(made: Any, node: Any) -> None:
    """Its disk, card and address go with it: their deleteOption says so."""
    made.destroy_node(node, ex_destroy_nic=False, ex_destroy_vhd=False, ex_destroy_os_disk=False)


class Azure(CloudDriver):
    name: ClassVar[str] = "azure"
    config_type: ClassVar[type[Any]] = AzureConfig
    ignored: ClassVar[Mapping[str, str]] = {
        "--azure-availability-set NAME": "machines are no set to be balanced",
        "--azure-dns LABEL": "machines are reached by their addresses",
        "--azure-private-ip-address ADDRESS": "Azure chooses it",
        "--azure-static-public-ip": "every public address stays as long as its machine",
        "--azure-docker-port PORT": "the engine is at its usual port",
    }
    provider: ClassVar[Provider] = Provider(
        title="Azure",
        connect=_connect,
        make=_make,
        mark=_mark,
        by_hand="az vm delete --ids {id}",
        nodes=_nodes,
        place="location",
        image=_image,
        destroy=_destroy,
        size_name=lambda node: str(node.extra["properties"]["hardwareProfile"]["vmSize"]),
        prepare=_prepare,
        clean=_clean,
        needs=("subscription_id", "tenant_id", "client_id", "client_secret"),
    )
