"""Where an instance is put: VPC, subnet, and the security groups that open its ports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from machine import wait
from machine.drivers.amazonec2 import api
from machine.drivers.amazonec2.config import Amazonec2Config
from machine.errors import BadOption, DriverError, PreflightError, TimedOut

SSH_PORT: Final = 22
OURS: Final = "machine:made"
"""Tag of a security group that we made, and so may remove."""
NO_GROUP: Final = ("InvalidGroup.NotFound", "InvalidGroupId.NotFound")
"""EC2's codes for a group that is not there."""
LET_GO: Final = 90
"""Seconds that a terminated instance's network card may still hold its security group."""


def place(ec2: Any, config: Amazonec2Config, region: str) -> tuple[str, str]:
    """The VPC and the subnet that the options mean. Raises PreflightError."""
    subnets = _subnets(ec2, config, region)
    if not subnets:
        where = f"the zone {region}{config.zone}" if config.zone else region
        raise PreflightError(
            f"There is no subnet for the machine in {where}",
            hint="Name one with --amazonec2-subnet-id, or another --amazonec2-zone",
        )
    best = sorted(subnets, key=lambda each: (not each.get("DefaultForAz"), each["SubnetId"]))[0]
    if config.vpc_id and best["VpcId"] != config.vpc_id:
        raise PreflightError(
            f"The subnet {best['SubnetId']} belongs to {best['VpcId']}, not to {config.vpc_id}",
            hint="Leave --amazonec2-vpc-id or --amazonec2-subnet-id out",
        )
    return best["VpcId"], best["SubnetId"]


def _subnets(ec2: Any, config: Amazonec2Config, region: str) -> list[dict[str, Any]]:
    with api.doing("looking for the subnet", PreflightError):
        if config.subnet_id:
            return list(ec2.describe_subnets(SubnetIds=[config.subnet_id])["Subnets"])
        filters = {"vpc-id": config.vpc_id or _default_vpc(ec2)}
        if config.zone:  # "a", as docker-machine takes it, or in full
            filters["availability-zone"] = f"{region}{config.zone.removeprefix(region)}"
        return list(ec2.describe_subnets(Filters=as_filters(filters))["Subnets"])


def _default_vpc(ec2: Any) -> str:
    found = ec2.describe_vpcs(Filters=as_filters({"is-default": "true"}))["Vpcs"]
    if not found:
        raise PreflightError(
            "The account has no default VPC in this region",
            hint="Name one with --amazonec2-vpc-id or --amazonec2-subnet-id, or make it: "
            "aws ec2 create-default-vpc",
        )
    return str(found[0]["VpcId"])


def account(ec2: Any) -> str:
    """The number of the account that asks, without any permission more than the rest needs; "" if
    it owns no VPC here."""
    with api.doing("looking whose credentials these are"):
        filters = as_filters({"group-name": "default"})
        found = ec2.describe_security_groups(Filters=filters)["SecurityGroups"]
    return str(found[0]["OwnerId"]) if found else ""


def require_account(ec2: Any, expected: str) -> None:
    """Called before a machine that is not found is taken for gone. Raises DriverError."""
    asked = account(ec2)
    if expected and asked and asked != expected:
        raise DriverError(
            f"The credentials belong to the account {asked}; the machine is in {expected}",
            hint="Use that account's: --amazonec2-profile at creation, or AWS_PROFILE, or "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY now",
        )


def ensure(ec2: Any, vpc: str, name: str) -> str:
    """The id of a security group, which is made if there is none. Twice is fine."""
    return _find(ec2, vpc, name) or _make(ec2, vpc, name)


def open_ports(ec2: Any, group: str, wanted: Sequence[dict[str, Any]]) -> None:
    """Add the rules that are missing. Twice is fine."""
    for rule in wanted:
        try:
            with api.doing("opening a port"):
                ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])
        except DriverError as exc:
            if api.code(exc) != "InvalidPermission.Duplicate":
                raise


def rules(config: Amazonec2Config, engine_port: int) -> list[dict[str, Any]]:
    """What has to be open, one rule each: of several in one call, one that is there already makes
    EC2 refuse them all. Raises BadOption."""
    wanted = [("tcp", SSH_PORT), ("tcp", engine_port), *map(_port, config.open_port)]
    return [
        {
            "IpProtocol": protocol,
            "FromPort": port,
            "ToPort": port,
            **(
                {"Ipv6Ranges": [{"CidrIpv6": cidr}]}
                if ":" in cidr
                else {"IpRanges": [{"CidrIp": cidr}]}
            ),
        }
        for protocol, port in wanted
        for cidr in config.open_to
    ]


def release(ec2: Any, groups: Sequence[str], instance: str) -> list[str]:
    """Remove those groups that we made and no other machine uses; answers those that stay although
    none does. Twice is fine."""
    if not groups:
        return []
    with api.doing("looking for security groups"):
        filters = [*as_filters({"tag-key": OURS}), {"Name": "group-id", "Values": list(groups)}]
        found = ec2.describe_security_groups(Filters=filters)["SecurityGroups"]
    return [
        str(each["GroupId"])
        for each in found
        if not _has_others(ec2, each["GroupId"], instance)
        and not _deleted(ec2, each["GroupId"], instance)
    ]


def as_filters(values: dict[str, str]) -> list[dict[str, Any]]:
    return [{"Name": name, "Values": [value]} for name, value in values.items()]


def _port(text: str) -> tuple[str, int]:
    number, _, protocol = text.partition("/")
    if not number.isdecimal() or protocol not in ("", "tcp", "udp"):
        raise BadOption(f"--amazonec2-open-port is {text!r}, and must be as 80 or 53/udp")
    return protocol or "tcp", int(number)


def _find(ec2: Any, vpc: str, name: str) -> str | None:
    with api.doing(f"looking for the security group {name}"):
        filters = as_filters({"group-name": name, "vpc-id": vpc})
        found = ec2.describe_security_groups(Filters=filters)["SecurityGroups"]
    return str(found[0]["GroupId"]) if found else None


def _make(ec2: Any, vpc: str, name: str) -> str:
    """Another create may make it in this moment: then it is that one's."""
    try:
        with api.doing(f"making the security group {name}"):
            made = ec2.create_security_group(
                GroupName=name,
                Description="Machines of docker-machine's successor: SSH and the engine",
                VpcId=vpc,
                TagSpecifications=[
                    {"ResourceType": "security-group", "Tags": [{"Key": OURS, "Value": "yes"}]}
                ],
            )
    except DriverError as exc:
        if api.code(exc) == "InvalidGroup.Duplicate" and (found := _find(ec2, vpc, name)):
            return found
        raise
    return str(made["GroupId"])


def _has_others(ec2: Any, group: str, instance: str) -> bool:
    """Whether network cards of other instances are in the group."""
    with api.doing("looking who uses a security group"):
        filters = as_filters({"group-id": group})
        cards = ec2.describe_network_interfaces(Filters=filters)["NetworkInterfaces"]
    holders = {(each.get("Attachment") or {}).get("InstanceId") for each in cards}
    return bool(holders - {None, "", instance})


def _deleted(ec2: Any, group: str, instance: str) -> bool:
    """EC2 itself refuses as long as something holds the group: another machine that comes now, too."""

    def delete() -> bool:
        try:
            with api.doing("removing the security group"):
                ec2.delete_security_group(GroupId=group)
        except DriverError as exc:
            if api.code(exc) in ("DependencyViolation", "InvalidGroup.InUse"):
                return _has_others(ec2, group, instance)
            if api.code(exc) not in NO_GROUP:
                raise
        return True

    try:
        return wait.until("the security group", delete, timeout=LET_GO, first=1, most=5)
    except TimedOut:
        return False
