"""What an instance is made of: the image that its type can run, and the request for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from machine import seed
from machine.driver import HostRef
from machine.drivers.amazonec2 import api
from machine.drivers.amazonec2.config import Amazonec2Config, Amazonec2Facts
from machine.errors import BadOption, PreflightError
from machine.model import VmSpec

ID_TAG: Final = "machine:id"
NAME_TAG: Final = "machine:name"
STORE_TAG: Final = "machine:store"

DEBIAN: Final = "136693071363"
"""The account that Debian publishes its images with (Debian's wiki, Cloud/AmazonEC2Image)."""
_ARCHITECTURES: Final = {"x86_64": "amd64", "arm64": "arm64"}
"""EC2's word for a processor, and Debian's."""


def image(ec2: Any, config: Amazonec2Config) -> tuple[str, str]:
    """The AMI to boot and its root device: what was named, or the newest Debian 13 for the
    processor of that instance type. Raises PreflightError."""
    runs = _architectures(ec2, config.instance_type)
    if config.ami:
        with api.doing("looking for the image", PreflightError):
            found = ec2.describe_images(ImageIds=[config.ami])["Images"]
    else:
        debian = next((_ARCHITECTURES[each] for each in runs if each in _ARCHITECTURES), "amd64")
        with api.doing("looking for the image", PreflightError):
            filters = [{"Name": "name", "Values": [f"debian-13-{debian}-*"]}]
            found = ec2.describe_images(Owners=[DEBIAN], Filters=filters)["Images"]
    if not found:
        raise PreflightError(
            f"There is no image {config.ami or 'of Debian 13'} in this region",
            hint="Name one that runs cloud-init: --amazonec2-ami ami-...",
        )
    newest = max(found, key=lambda each: str(each.get("CreationDate", "")))
    if runs and newest["Architecture"] not in runs:
        raise PreflightError(
            f"A {config.instance_type} cannot run {newest['ImageId']}, which is for "
            f"{newest['Architecture']}",
            hint="Choose another --amazonec2-instance-type, or leave --amazonec2-ami out",
        )
    return str(newest["ImageId"]), str(newest.get("RootDeviceName") or "/dev/xvda")


def _architectures(ec2: Any, instance_type: str) -> list[str]:
    """What an instance type can run. Raises PreflightError for one that there is not."""
    with api.doing("looking for the instance type", PreflightError):
        types = ec2.describe_instance_types(InstanceTypes=[instance_type])["InstanceTypes"]
    return list(types[0]["ProcessorInfo"]["SupportedArchitectures"]) if types else []


def change_type(ec2: Any, instance: Mapping[str, Any], instance_type: str) -> None:
    """Of an instance that is off. Raises PreflightError for a type that cannot run it."""
    runs, needs = _architectures(ec2, instance_type), instance["Architecture"]
    if runs and needs not in runs:
        raise PreflightError(
            f"A {instance_type} cannot run {instance['InstanceId']}, which is for {needs}",
            hint="Choose a type for that processor",
        )
    with api.doing(f"changing {instance['InstanceId']} to {instance_type}"):
        ec2.modify_instance_attribute(
            InstanceId=instance["InstanceId"], InstanceType={"Value": instance_type}
        )


def grow(ec2: Any, instance: Mapping[str, Any], disk_gib: int) -> None:
    """The root volume; cloud-init grows the file system at the next boot."""
    root = next(
        each["Ebs"]["VolumeId"]
        for each in instance["BlockDeviceMappings"]
        if each["DeviceName"] == instance["RootDeviceName"]
    )
    with api.doing(f"growing {root}"):
        (volume,) = ec2.describe_volumes(VolumeIds=[root])["Volumes"]
        if volume["Size"] != disk_gib:  # a volume can be changed once in six hours
            ec2.modify_volume(VolumeId=root, Size=disk_gib)


def instances(ec2: Any, filters: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    pages = ec2.get_paginator("describe_instances").paginate(Filters=list(filters))
    return [one for page in pages for group in page["Reservations"] for one in group["Instances"]]


def is_gone(instance: Mapping[str, Any]) -> bool:
    """EC2 shows an instance for about an hour after its end."""
    return bool(instance["State"]["Name"] == "terminated")


def is_ending(instance: Mapping[str, Any]) -> bool:
    return is_gone(instance) or bool(instance["State"]["Name"] == "shutting-down")


def tag(instance: Mapping[str, Any], key: str) -> str:
    return next((each["Value"] for each in instance.get("Tags", ()) if each["Key"] == key), "")


def user_data(config: Amazonec2Config, spec: VmSpec) -> str:
    """Ours, with the template's and the user's beside it."""
    return seed.user_data(spec.identity, extra_user_data(config))


def extra_user_data(config: Amazonec2Config) -> str:
    """Raises BadOption."""
    return seed.user_file(config.userdata, "--amazonec2-userdata")


def tags(host: HostRef, config: Amazonec2Config) -> list[dict[str, str]]:
    """Raises BadOption."""
    words = config.tags.split(",") if config.tags else []
    if len(words) % 2:
        raise BadOption(f"--amazonec2-tags is {config.tags!r}, and must be KEY,VALUE,KEY,VALUE")
    ours = {
        "Name": host.name,
        ID_TAG: host.id,
        NAME_TAG: host.name,
        STORE_TAG: str(host.folder.parent.parent),
    }
    given = dict(zip(words[::2], words[1::2], strict=True))
    return [{"Key": key, "Value": value} for key, value in {**given, **ours}.items()]


def request(
    host: HostRef, config: Amazonec2Config, facts: Amazonec2Facts, spec: VmSpec
) -> dict[str, Any]:
    """The parameters of RunInstances. With the machine's id as its token a request that is made
    again, after a kill or by the SDK, makes no second instance."""
    marks = tags(host, config)
    ask: dict[str, Any] = {
        "ClientToken": host.id,
        "MinCount": 1,
        "MaxCount": 1,
        "ImageId": facts.ami,
        "InstanceType": config.instance_type,
        "UserData": user_data(config, spec),
        "BlockDeviceMappings": [
            {
                "DeviceName": config.device_name or facts.device,
                "Ebs": {
                    "VolumeSize": spec.disk_gib,
                    "VolumeType": config.volume_type,
                    "DeleteOnTermination": True,
                    **({"Encrypted": True} if config.encrypt_ebs_volume else {}),
                },
            }
        ],
        "NetworkInterfaces": [
            {
                "DeviceIndex": 0,
                "SubnetId": facts.subnet,
                "Groups": list(facts.groups),
                "AssociatePublicIpAddress": not config.private_address_only,
                "DeleteOnTermination": True,
            }
        ],
        "TagSpecifications": [
            {"ResourceType": kind, "Tags": marks}
            for kind in ("instance", "volume", "network-interface")
        ],
        "MetadataOptions": {
            "HttpTokens": "required",
            "HttpPutResponseHopLimit": config.http_put_response_hop_limit,
        },
        "Monitoring": {"Enabled": config.monitoring},
    }
    if config.use_ebs_optimized_instance:
        ask["EbsOptimized"] = True
    if config.iam_instance_profile:
        key = "Arn" if config.iam_instance_profile.startswith("arn:") else "Name"
        ask["IamInstanceProfile"] = {key: config.iam_instance_profile}
    if config.request_spot_instance:
        limit = {"MaxPrice": config.spot_price} if config.spot_price else {}
        ask["InstanceMarketOptions"] = {"MarketType": "spot", "SpotOptions": limit}
    return ask
