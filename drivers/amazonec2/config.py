"""What a user may choose for an EC2 instance, and what a create learns. Flags and variables are
docker-machine's (drivers/amazonec2/amazonec2.go of 0.16), and three of rancher-machine's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from machine.flags import option

OUR_GROUP: Final = "docker-machine"
"""Security group, one in each VPC; docker-machine's own name for it."""
EVERYWHERE: Final = "0.0.0.0/0"


@dataclass(frozen=True, slots=True)
class Amazonec2Config:
    access_key: str = option(
        "",
        "where the access key is; default: what the AWS SDK finds",
        env=("AWS_ACCESS_KEY_ID",),
        secret=True,
    )
    secret_key: str = option(
        "", "where the secret key is", env=("AWS_SECRET_ACCESS_KEY",), secret=True
    )
    session_token: str = option(
        "", "where the session token is", env=("AWS_SESSION_TOKEN",), secret=True
    )
    profile: str = option("", "profile of ~/.aws/config and ~/.aws/credentials")
    region: str = option(
        "",
        "region; default: the profile's, or us-east-1",
        env=("AWS_DEFAULT_REGION", "AWS_REGION"),
    )
    ami: str = option(
        "", "machine image with cloud-init; default: Debian 13's newest", env=("AWS_AMI",)
    )
    instance_type: str = option("t3.micro", "instance type", env=("AWS_INSTANCE_TYPE",))
    vpc_id: str = option("", "VPC; default: the account's default one", env=("AWS_VPC_ID",))
    subnet_id: str = option("", "subnet; default: one of the VPC's", env=("AWS_SUBNET_ID",))
    zone: str = option("", "zone of the region: a, b, ...; default: any", env=("AWS_ZONE",))
    security_group: tuple[str, ...] = option(
        (OUR_GROUP,),
        "security group, made if there is none; repeat it for more",
        env=("AWS_SECURITY_GROUP",),
    )
    security_group_readonly: bool = option(
        False, "add no rules to security groups", env=("AWS_SECURITY_GROUP_READONLY",)
    )
    open_port: tuple[str, ...] = option(
        (), "further port to open, as 80 or 53/udp; repeat it for more", metavar="PORT[/PROTOCOL]"
    )
    open_to: tuple[str, ...] = option(
        (EVERYWHERE,),
        "who may reach the ports (SSH and the engine take keys and certificates alone)",
        metavar="CIDR",
    )
    tags: str = option("", "further tags: KEY,VALUE,KEY,VALUE", env=("AWS_TAGS",))
    device_name: str = option(
        "", "root device; default: the image's", env=("AWS_DEVICE_NAME",), metavar="DEVICE"
    )
    root_size: int | None = option(None, "root disk", env=("AWS_ROOT_SIZE",), metavar="GIB", low=4)
    volume_type: str = option("gp3", "EBS volume type", env=("AWS_VOLUME_TYPE",))
    encrypt_ebs_volume: bool = option(
        False, "encrypt the root disk", env=("AWS_ENCRYPT_EBS_VOLUME",)
    )
    iam_instance_profile: str = option(
        "", "instance profile of the instance", env=("AWS_INSTANCE_PROFILE",)
    )
    ssh_user: str = option("", "user to be made; default: the template's", env=("AWS_SSH_USER",))
    request_spot_instance: bool = option(False, "a spot instance")
    spot_price: str = option(
        "", "highest price of a spot instance; default: the on-demand price", metavar="USD"
    )
    private_address_only: bool = option(False, "no public address")
    use_private_address: bool = option(False, "reach it by its private address")
    monitoring: bool = option(False, "detailed CloudWatch monitoring, which costs")
    use_ebs_optimized_instance: bool = option(
        False, "EBS-optimized, for types where one may choose"
    )
    http_put_response_hop_limit: int = option(
        1,
        "hops from which instance metadata can be asked; 2 lets containers ask",
        env=("AWS_HTTP_PUT_RESPONSE_HOP_LIMIT",),
        low=1,
        high=64,
    )
    retries: int = option(5, "how often a call that failed for the moment is made again", low=-1)
    endpoint: str = option(
        "", "URL of another service that speaks EC2's API", env=("AWS_ENDPOINT",)
    )
    insecure_transport: bool = option(
        False, "no TLS to an endpoint without a scheme", env=("AWS_INSECURE_TRANSPORT",)
    )
    userdata: str = option(
        "", "file with user-data to go beside ours", env=("AWS_USERDATA",), metavar="FILE"
    )
    boot_timeout: int | None = option(None, "longest boot", metavar="SECONDS", low=1)


@dataclass(frozen=True, slots=True)
class Amazonec2Facts:
    region: str = ""
    account: str = ""  # its number
    ami: str = ""
    device: str = ""  # the image's root device
    vpc: str = ""
    subnet: str = ""
    asked: bool = False  # for an instance that was not seen yet
    instance: str = ""
    groups: tuple[str, ...] = ()  # ids of its security groups
    address: str = ""
    engine_port: int = 2376
