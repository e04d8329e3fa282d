"""The only place that loads boto3: who asks where, how often, and what refusals mean."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from machine import secret
from machine.errors import (
    BadOption,
    DriverError,
    MachineError,
    PreflightError,
    SecretMissing,
    TimedOut,
)
from machine.wait import Deadline

LIMIT: Final = 120
"""Seconds after which a call is not made again; its attempts and pauses count."""
_OF_THE_SDK: Final = frozenset(
    {"env:AWS_ACCESS_KEY_ID", "env:AWS_SECRET_ACCESS_KEY", "env:AWS_SESSION_TOKEN"}
)
"""Left to the SDK, which looks there first: so a profile can take their place later."""

_CREDENTIALS: Final = (
    "Give credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, --amazonec2-profile, or "
    "--amazonec2-access-key and --amazonec2-secret-key with env:NAME, file:PATH, command:WORDS or "
    "keyring:SERVICE/USER"
)
_QUOTA: Final = (
    "A quota of the account is used up in this region: remove machines, choose another region, or "
    "ask for more under Service Quotas in the AWS console"
)
_CAPACITY: Final = "Try another --amazonec2-zone or --amazonec2-instance-type"
_HINTS: Final = {  # EC2's error codes (API reference, "Error codes for the Amazon EC2 API")
    "AuthFailure": _CREDENTIALS,
    "InvalidClientTokenId": _CREDENTIALS,
    "SignatureDoesNotMatch": _CREDENTIALS,
    "ExpiredToken": "The session is over: get new credentials; the record needs no change",
    "RequestExpired": "The session is over, or this computer's clock is wrong",
    "UnauthorizedOperation": "These credentials may not do this: see docs/clouds.md for what is "
    "needed",
    "AccessDenied": "These credentials may not do this: see docs/clouds.md for what is needed",
    "OptInRequired": "Turn the region on for this account in the AWS console",
    "PendingVerification": "Amazon is still verifying the account",
    "InstanceLimitExceeded": _QUOTA,
    "VcpuLimitExceeded": _QUOTA,
    "MaxSpotInstanceCountExceeded": _QUOTA,
    "VolumeLimitExceeded": _QUOTA,
    "AddressLimitExceeded": _QUOTA,
    "SecurityGroupLimitExceeded": _QUOTA,
    "RulesPerSecurityGroupLimitExceeded": _QUOTA,
    "ResourceCountExceeded": _QUOTA,
    "InsufficientInstanceCapacity": _CAPACITY,
    "InsufficientFreeAddressesInSubnet": "Choose another --amazonec2-subnet-id",
    "SpotMaxPriceTooLow": "Raise --amazonec2-spot-price, or leave it out",
    "InvalidAMIID.NotFound": "An AMI belongs to one region: is --amazonec2-region right?",
    "InvalidAMIID.Malformed": "An AMI looks like ami-0123456789abcdef0",
    "InvalidInstanceType": "See: aws ec2 describe-instance-type-offerings",
    "InvalidVpcID.NotFound": "A VPC belongs to one region: is --amazonec2-region right?",
    "InvalidSubnetID.NotFound": "A subnet belongs to one region: is --amazonec2-region right?",
    "Unsupported": _CAPACITY,
    "RequestLimitExceeded": "Wait a little, and run the same command again",
    "Throttling": "Wait a little, and run the same command again",
}


@dataclass(frozen=True, slots=True)
class Account:
    """Who asks, and where; secrets are references. Equal ones are asked once."""

    region: str
    access_key: str = ""
    secret_key: str = ""
    session_token: str = ""
    profile: str = ""
    endpoint: str = ""
    retries: int = 5


@functools.cache
def client(account: Account) -> Any:
    """Of EC2's API: one for a process. Raises SecretMissing, DriverError."""
    from botocore.config import Config

    with doing("finding AWS credentials"):
        made = _session(account).client(
            "ec2",
            region_name=account.region,
            endpoint_url=account.endpoint or None,
            config=Config(
                retries={"mode": "standard", "total_max_attempts": max(account.retries, 0) + 1},
                connect_timeout=10,
                read_timeout=60,
                user_agent_extra="machine",
            ),
        )
    _limit(made)
    return made


def region(account: Account) -> str:
    """The account's region as it was given, or the profile's, or docker-machine's default. Raises
    PreflightError for one that cannot be."""
    from botocore.exceptions import UnknownRegionError

    with doing("reading the AWS configuration", PreflightError):
        try:
            session = _session(account)
        except SecretMissing as exc:
            raise PreflightError(exc.brief, details=exc.details, hint=exc.hint) from exc
        name = account.region or session.region_name or "us-east-1"
        try:
            session.get_partition_for_region(name)
        except UnknownRegionError:
            if not account.endpoint:
                known = ", ".join(session.get_available_regions("ec2"))
                raise PreflightError(
                    f"AWS has no region {name}", hint=f"--amazonec2-region is one of: {known}"
                ) from None
    return str(name)


def reference(given: str) -> str:
    """Where a credential is; "" where the SDK finds it by itself."""
    return "" if given in _OF_THE_SDK else given


def endpoint(given: str, *, insecure: bool) -> str:
    """A full URL; docker-machine took host names as well."""
    if insecure and not given:
        raise BadOption("--amazonec2-insecure-transport is for an --amazonec2-endpoint")
    if not given or "://" in given:
        return given
    return f"{'http' if insecure else 'https'}://{given}"


@contextmanager
def doing(what: str, error: type[MachineError] = DriverError) -> Iterator[None]:
    """Turn the SDK's errors into ours: the provider's words, and what to do."""
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        HTTPClientError,
        NoCredentialsError,
        PartialCredentialsError,
    )

    try:
        yield
    except ClientError as exc:
        said = exc.response.get("Error", {})
        raise error(
            f"AWS refused {what}",
            details=f"{said.get('Code', '')}: {said.get('Message', exc)}",
            hint=_HINTS.get(said.get("Code", ""), ""),
        ) from exc
    except (NoCredentialsError, PartialCredentialsError) as exc:
        raise error("There are no AWS credentials", details=str(exc), hint=_CREDENTIALS) from exc
    except HTTPClientError as exc:
        hint = "Is the network up, and --amazonec2-region (or --amazonec2-endpoint) right?"
        raise error(f"AWS does not answer, {what}", details=str(exc), hint=hint) from exc
    except BotoCoreError as exc:  # a profile that is not there, a role that cannot be had
        raise error(f"AWS cannot be asked, {what}", details=str(exc), hint=_CREDENTIALS) from exc


def code(exc: MachineError) -> str:
    """EC2's own code for what ``doing`` raised; "" if there is none."""
    cause = exc.__cause__
    response = getattr(cause, "response", {}) or {}
    return str(response.get("Error", {}).get("Code", ""))


def _session(account: Account) -> Any:
    import boto3

    given = {
        "aws_access_key_id": account.access_key,
        "aws_secret_access_key": account.secret_key,
        "aws_session_token": account.session_token,
    }
    found = {key: secret.resolve(where) for key, where in given.items() if where}
    return boto3.Session(**found, profile_name=account.profile or None)


def _limit(made: Any) -> None:
    """The SDK repeats and pauses by itself; this ends a call that takes too long with it."""
    calls = threading.local()

    def begin(**_: Any) -> None:
        calls.deadline = Deadline(LIMIT)

    def check(**_: Any) -> None:
        if calls.deadline.over:
            raise TimedOut(f"AWS did not do as asked within {LIMIT} s, however often it was asked")

    made.meta.events.register("before-call.ec2", begin)
    made.meta.events.register("before-send.ec2", check)
