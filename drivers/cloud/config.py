"""What a user may choose at each provider. Flags and variables are docker-machine's where it had the
provider (drivers/ of 0.16, and its plugins for linode and vultr)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from machine.flags import option


def _ssh_user(variable: str, flag: str = "") -> Any:
    return option("", "user to be made; default: the template's", env=(variable,), flag=flag)


def _userdata(variable: str, flag: str = "") -> Any:
    text = "file with user-data to go beside ours"
    return option("", text, env=(variable,), metavar="FILE", flag=flag)


def _endpoint() -> Any:
    return option("", "URL of another service with the same API")


def _boot_timeout() -> Any:
    return option(None, "longest boot", metavar="SECONDS", low=1)


@dataclass(frozen=True, slots=True)
class CloudFacts:
    location: str = ""  # ids at the provider
    size: str = ""
    image: str = ""
    node: str = ""
    address: str = ""
    engine_port: int = 2376


@dataclass(frozen=True, slots=True)
class DigitalOceanConfig:
    access_token: str = option(
        "", "where the access token is", env=("DIGITALOCEAN_ACCESS_TOKEN",), secret=True
    )
    image: str = option("debian-13-x64", "image", env=("DIGITALOCEAN_IMAGE",))
    region: str = option("nyc3", "region", env=("DIGITALOCEAN_REGION",))
    size: str = option("s-1vcpu-1gb", "size", env=("DIGITALOCEAN_SIZE",))
    ssh_user: str = _ssh_user("DIGITALOCEAN_SSH_USER")
    ipv6: bool = option(False, "an IPv6 address too", env=("DIGITALOCEAN_IPV6",))
    private_networking: bool = option(
        False, "a private network too", env=("DIGITALOCEAN_PRIVATE_NETWORKING",)
    )
    backups: bool = option(False, "backups, which cost", env=("DIGITALOCEAN_BACKUPS",))
    tags: tuple[str, ...] = option((), "further tags", env=("DIGITALOCEAN_TAGS",))
    userdata: str = _userdata("DIGITALOCEAN_USERDATA")
    endpoint: str = _endpoint()
    boot_timeout: int | None = _boot_timeout()


@dataclass(frozen=True, slots=True)
class VultrConfig:
    api_key: str = option("", "where the API key is", env=("VULTR_API_KEY",), secret=True)
    image: str = option("Debian 13 x64 (trixie)", "system, by name or id", env=("VULTR_OS_ID",))
    region: str = option("ewr", "region", env=("VULTR_REGION",))
    size: str = option("vc2-1c-1gb", "plan", env=("VULTR_VPS_PLAN",), flag="--vultr-vps-plan")
    ssh_user: str = _ssh_user("VULTR_SSH_USER")
    ipv6: bool = option(False, "an IPv6 address too", env=("VULTR_IPV6",))
    backups: bool = option(False, "backups, which cost", env=("VULTR_BACKUPS",))
    firewall_group_id: str = option("", "firewall group", env=("VULTR_FIREWALL_GROUP_ID",))
    userdata: str = _userdata("VULTR_USERDATA")
    endpoint: str = _endpoint()
    boot_timeout: int | None = _boot_timeout()


@dataclass(frozen=True, slots=True)
class LinodeConfig:
    token: str = option("", "where the token is", env=("LINODE_TOKEN",), secret=True)
    image: str = option("linode/debian13", "image", env=("LINODE_IMAGE",))
    region: str = option("us-east", "region", env=("LINODE_REGION",))
    size: str = option(
        "g6-standard-1", "type", env=("LINODE_INSTANCE_TYPE",), flag="--linode-instance-type"
    )
    ssh_user: str = _ssh_user("LINODE_SSH_USER")
    private_ip: bool = option(
        False,
        "a private address too",
        env=("LINODE_CREATE_PRIVATE_IP",),
        flag="--linode-create-private-ip",
    )
    tags: tuple[str, ...] = option((), "further tags", env=("LINODE_TAGS",))
    userdata: str = _userdata("LINODE_USERDATA")
    endpoint: str = _endpoint()
    boot_timeout: int | None = _boot_timeout()


@dataclass(frozen=True, slots=True)
class OpenStackConfig:
    auth_url: str = option("", "URL of the identity service (v3)", env=("OS_AUTH_URL",))
    username: str = option("", "user", env=("OS_USERNAME",))
    password: str = option("", "where the password is", env=("OS_PASSWORD",), secret=True)
    tenant_name: str = option("", "project", env=("OS_TENANT_NAME", "OS_PROJECT_NAME"))
    domain_name: str = option(
        "Default", "domain of user and project", env=("OS_DOMAIN_NAME", "OS_USER_DOMAIN_NAME")
    )
    region: str = option("RegionOne", "region", env=("OS_REGION_NAME",))
    availability_zone: str = option("", "availability zone", env=("OS_AVAILABILITY_ZONE",))
    size: str = option(
        "",
        "flavour, by name or id",
        env=("OS_FLAVOR_NAME", "OS_FLAVOR_ID"),
        flag="--openstack-flavor-name",
    )
    image: str = option(
        "",
        "image with cloud-init, by name or id",
        env=("OS_IMAGE_NAME", "OS_IMAGE_ID"),
        flag="--openstack-image-name",
    )
    net_name: str = option(
        "",
        "network, by name or id; default: the project's only one",
        env=("OS_NETWORK_NAME", "OS_NETWORK_ID"),
    )
    sec_groups: tuple[str, ...] = option((), "security groups", env=("OS_SECURITY_GROUPS",))
    config_drive: bool = option(
        False, "user-data on a drive instead of the metadata service", env=("OS_CONFIG_DRIVE",)
    )
    ssh_user: str = _ssh_user("OS_SSH_USER")
    userdata: str = _userdata("OS_USER_DATA_FILE", "--openstack-user-data-file")
    boot_timeout: int | None = _boot_timeout()


@dataclass(frozen=True, slots=True)
class GoogleConfig:
    project: str = option("", "project", env=("GOOGLE_PROJECT",))
    credentials: str = option(
        "",
        "where the service account's key (JSON) is: file:PATH",
        env=("GOOGLE_CREDENTIALS",),
        secret=True,
    )
    zone: str = option("us-central1-a", "zone", env=("GOOGLE_ZONE",))
    size: str = option(
        "e2-small", "machine type", env=("GOOGLE_MACHINE_TYPE",), flag="--google-machine-type"
    )
    image: str = option(
        "ubuntu-os-cloud/global/images/family/ubuntu-2404-lts-amd64",
        "image with cloud-init: PROJECT/global/images/NAME or .../family/NAME",
        env=("GOOGLE_MACHINE_IMAGE",),
        flag="--google-machine-image",
    )
    ssh_user: str = _ssh_user("GOOGLE_USERNAME", "--google-username")
    network: str = option("default", "network", env=("GOOGLE_NETWORK",))
    subnetwork: str = option("", "subnetwork", env=("GOOGLE_SUBNETWORK",))
    disk_size: int | None = option(
        None, "root disk", env=("GOOGLE_DISK_SIZE",), metavar="GIB", low=10
    )
    disk_type: str = option("pd-standard", "disk type", env=("GOOGLE_DISK_TYPE",))
    preemptible: bool = option(False, "a preemptible instance", env=("GOOGLE_PREEMPTIBLE",))
    tags: tuple[str, ...] = option((), "network tags", env=("GOOGLE_TAGS",))
    open_port: tuple[str, ...] = option((), "further port to open, as 80/tcp", metavar="PORT")
    use_internal_ip: bool = option(
        False, "reach it by its internal address", env=("GOOGLE_USE_INTERNAL_IP",)
    )
    use_internal_ip_only: bool = option(
        False, "no external address", env=("GOOGLE_USE_INTERNAL_IP_ONLY",)
    )
    userdata: str = _userdata("GOOGLE_USERDATA")
    endpoint: str = _endpoint()
    boot_timeout: int | None = _boot_timeout()


@dataclass(frozen=True, slots=True)
class AzureConfig:
    subscription_id: str = option("", "subscription", env=("AZURE_SUBSCRIPTION_ID",))
    tenant_id: str = option("", "tenant (directory) of the client", env=("AZURE_TENANT_ID",))
    client_id: str = option("", "service principal", env=("AZURE_CLIENT_ID",))
    client_secret: str = option(
        "", "where its secret is", env=("AZURE_CLIENT_SECRET",), secret=True
    )
    environment: str = option(
        "AzurePublicCloud",
        "which Azure",
        env=("AZURE_ENVIRONMENT",),
        choices=("AzurePublicCloud", "AzureUSGovernmentCloud", "AzureChinaCloud"),
    )
    resource_group: str = option(
        "docker-machine", "resource group, made if there is none", env=("AZURE_RESOURCE_GROUP",)
    )
    location: str = option("westus", "location", env=("AZURE_LOCATION",))
    size: str = option("Standard_B1ms", "size", env=("AZURE_SIZE",))
    image: str = option(
        "Debian:debian-13:13-gen2:latest",
        "image with cloud-init: PUBLISHER:OFFER:SKU:VERSION",
        env=("AZURE_IMAGE",),
    )
    disk_size: int | None = option(None, "root disk", metavar="GIB", low=30)
    storage_type: str = option("Standard_LRS", "disk type", env=("AZURE_STORAGE_TYPE",))
    ssh_user: str = _ssh_user("AZURE_SSH_USER")
    vnet: str = option(
        "docker-machine-vnet",
        "virtual network in the resource group, made if there is none",
        env=("AZURE_VNET",),
    )
    subnet: str = option("docker-machine", "subnet of it", env=("AZURE_SUBNET",))
    subnet_prefix: str = option(
        "192.168.0.0/16", "addresses of a subnet that is made", env=("AZURE_SUBNET_PREFIX",)
    )
    open_port: tuple[str, ...] = option((), "further port to open, as 80/tcp", metavar="PORT")
    use_private_ip: bool = option(
        False, "reach it by its private address", env=("AZURE_USE_PRIVATE_IP",)
    )
    no_public_ip: bool = option(False, "no public address", env=("AZURE_NO_PUBLIC_IP",))
    userdata: str = _userdata("AZURE_CUSTOM_DATA_FILE", "--azure-custom-data")
    endpoint: str = _endpoint()
    boot_timeout: int | None = _boot_timeout()
