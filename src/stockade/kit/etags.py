"""ETag and If-Match (RFC 9110, section 13.1.1) on resources that people edit: nobody overwrites what they have not seen."""

from typing import Annotated

from fastapi import Depends, Header, Response

from stockade.kit.errors import Stale


def tag(response: Response, version: int) -> None:
    """Name the version of the resource in the answer."""
    response.headers["ETag"] = f'"{version}"'


async def _read_if_match(
    if_match: Annotated[str, Header(alias="If-Match", max_length=200, description="The ETag that was read.")],
) -> str:
    return if_match.strip()


IfMatch = Annotated[str, Depends(_read_if_match)]


def check_version(if_match: str, version: int) -> None:
    """Refuse a change that is based on another version than the present one."""
    tags = {part.strip().removeprefix("W/") for part in if_match.split(",")}
    if "*" not in tags and f'"{version}"' not in tags:
        raise Stale("The resource was changed since you read it; read it again.", current=f'"{version}"')
