"""Instances with our mark that no record knows: paid for, and forgotten."""

from __future__ import annotations

import os
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any, Final

from machine.driver import Finding
from machine.drivers.amazonec2 import api, launch
from machine.errors import MachineError

_VARIABLES: Final = ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE")
_FILES: Final = {
    "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials",
    "AWS_CONFIG_FILE": "~/.aws/config",
}


def strays(accounts: Set[api.Account], known_ids: frozenset[str]) -> list[Finding]:
    """In the accounts and regions of the machines, and in those of this computer's own
    configuration, if it has one: otherwise nobody is asked, and no SDK is loaded."""
    found: list[Finding] = []
    asked = set(accounts)
    if _configured():
        asked.add(_own())
    for account in sorted(asked, key=str):
        try:
            ec2 = api.client(account)
            with api.doing("looking for machines"):
                tagged = [{"Name": "tag-key", "Values": [launch.ID_TAG]}]
                instances = launch.instances(ec2, tagged)
        except MachineError as exc:
            text = f"{account.region} cannot be asked: {exc.brief} {exc.details}".strip()
            found.append(Finding("warning", "amazonec2", text, exc.hint))
        else:
            found += _unknown(instances, account.region, known_ids)
    return found


def _unknown(
    instances: list[dict[str, Any]], region: str, known_ids: frozenset[str]
) -> Iterator[Finding]:
    """Never ended by us: another computer's store may well know them."""
    for each in instances:
        if launch.is_gone(each) or launch.tag(each, launch.ID_TAG) in known_ids:
            continue
        identifier, state = each["InstanceId"], each["State"]["Name"]
        name, store = launch.tag(each, launch.NAME_TAG), launch.tag(each, launch.STORE_TAG)
        yield Finding(
            "warning",
            "amazonec2",
            f"the instance {identifier} ({each['InstanceType']}, {state}, since "
            f'{each["LaunchTime"]:%Y-%m-%d}) is the machine "{name}" of a store {store}, and this '
            "store does not know it: it costs what its type costs",
            f"aws ec2 terminate-instances --region {region} --instance-ids {identifier}",
        )


def _configured() -> bool:
    files = (Path(os.environ.get(key, name)).expanduser() for key, name in _FILES.items())
    return any(map(os.environ.get, _VARIABLES)) or any(file.is_file() for file in files)


def _own() -> api.Account:
    return api.Account(region=api.region(api.Account(os.environ.get("AWS_DEFAULT_REGION", ""))))
