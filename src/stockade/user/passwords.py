"""Password hashing: Argon2id with OWASP's parameters (19 MiB, 2 passes, 1 lane), off the event loop, a few at a time."""

import asyncio

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

LENGTH_MIN = 12
LENGTH_MAX = 256

_hasher = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
# Each hash holds 19 MiB, so this also bounds the memory that a storm of log-ins can take.
_gate = asyncio.Semaphore(4)
_NOBODY = _hasher.hash("a password that no account has")


async def hash_password(password: str) -> str:
    async with _gate:
        return await asyncio.to_thread(_hasher.hash, password)


async def verify_password(password: str, stored: str | None) -> bool:
    """Whether the password is the one; an unknown account (None) takes as long as a wrong password."""
    async with _gate:
        return await asyncio.to_thread(_verify, password, stored)


def _verify(password: str, stored: str | None) -> bool:
    try:
        return _hasher.verify(stored or _NOBODY, password) and stored is not None
    except (VerificationError, InvalidHashError):
        return False
