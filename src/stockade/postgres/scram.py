"""SCRAM-SHA-256 verifiers, so that a password never travels in the text of a statement.

A statement may end up in a log, in pg_stat_activity or in an extension's memory; a verifier there does not open the
door. Source: RFC 5802 and RFC 7677; the notation is that of PostgreSQL's `pg_authid.rolpassword`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets

ITERATIONS = 4096
SALT_BYTES = 16


def scram_verifier(password: str) -> str:
    """The verifier of `password` under a new salt.

    Raises ValueError for an empty one and for characters outside printable ASCII, for which the preparation that the
    standard demands (SASLprep) would be more than the identity.
    """
    if not password or not password.isascii() or not password.isprintable():
        raise ValueError("a password must be of printable ASCII characters")
    salt = secrets.token_bytes(SALT_BYTES)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, ITERATIONS)
    stored_key = hashlib.sha256(_keyed(salted, b"Client Key")).digest()
    server_key = _keyed(salted, b"Server Key")
    return f"SCRAM-SHA-256${ITERATIONS}:{_encode(salt)}${_encode(stored_key)}:{_encode(server_key)}"


def _keyed(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, hashlib.sha256).digest()


def _encode(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")
