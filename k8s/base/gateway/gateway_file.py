"""Completes Kong's file when a pod of Kong starts: public keys of the tokens, and the origins of browsers.

Kong takes ES256 keys from its declarative file alone, and ours are made of a Secret that only the user-service may read. So
an init container asks the user-service for its JWKS (public by nature) and writes the complete file to a volume in memory;
nobody has to copy keys by hand, and no private key comes near Kong. Kong reads the file once: to rotate, see README.md.

Runs on the standard library of the service image: `python -I gateway_file.py`, with what it needs in the environment.
"""

import base64
import json
import os
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

KEYS_MAX = 5
ATTEMPTS_MAX = 60
_WAIT_S = 2
_TIMEOUT_S = 3
_DOCUMENT_BYTES_MAX = 65_536
# SubjectPublicKeyInfo of an uncompressed point on P-256 (RFC 5480): everything before the two coordinates.
_P256_PREFIX = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")


class CannotComplete(Exception):
    """The file cannot be made; the message says why, in one line."""


def complete(declaration: Mapping[str, Any], jwks: Mapping[str, Any], origins: list[str]) -> dict[str, Any]:
    """The declaration with one consumer that holds every key, and with `origins` as the ones that CORS lets in."""
    keys = jwks.get("keys", [])
    if not 1 <= len(keys) <= KEYS_MAX:
        raise CannotComplete(f"the JWKS has {len(keys)} keys, not one to {KEYS_MAX}")
    if not origins or not all(origin.startswith("https://") for origin in origins):
        raise CannotComplete("STOCKADE_ORIGINS must be one or more addresses that begin with https://")
    secrets = [{"key": key["kid"], "algorithm": "ES256", "rsa_public_key": to_pem(key)} for key in keys]
    plugins = [
        {**plugin, "config": {**plugin["config"], "origins": origins}} if plugin["name"] == "cors" else plugin
        for plugin in declaration["plugins"]
    ]
    return {**declaration, "plugins": plugins, "consumers": [{"username": "stockade", "jwt_secrets": secrets}]}


def to_pem(key: Mapping[str, Any]) -> str:
    """The PEM of a public ES256 key (RFC 7518, 6.2). Raises CannotComplete for any other key."""
    if (key.get("kty"), key.get("crv"), key.get("alg", "ES256")) != ("EC", "P-256", "ES256") or not key.get("kid"):
        raise CannotComplete(f"key {key.get('kid')!r} is not a named ES256 key")
    point = b"".join(_decode(key["kid"], key.get(coordinate, "")) for coordinate in ("x", "y"))
    body = base64.b64encode(_P256_PREFIX + point).decode()
    lines = [body[start : start + 64] for start in range(0, len(body), 64)]
    return "\n".join(["-----BEGIN PUBLIC KEY-----", *lines, "-----END PUBLIC KEY-----", ""])


def fetch_keys(url: str) -> dict[str, Any]:
    """The JWKS, asked for until it is there: after a first installation the user-service may start later than Kong."""
    for attempt in range(1, ATTEMPTS_MAX + 1):
        try:
            with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:  # noqa: S310  the address is our manifest's
                return json.loads(answer.read(_DOCUMENT_BYTES_MAX))
        except (OSError, ValueError) as error:
            print(f"gateway file: {url} does not give the keys yet ({error}), attempt {attempt} of {ATTEMPTS_MAX}")
        time.sleep(_WAIT_S)
    raise CannotComplete(f"{url} gave no keys; is the user-service ready, and may Kong reach it?")


def main() -> None:
    source, target = Path(os.environ["STOCKADE_GATEWAY_SOURCE"]), Path(os.environ["STOCKADE_GATEWAY_TARGET"])
    origins = os.environ["STOCKADE_ORIGINS"].split()
    try:
        completed = complete(json.loads(source.read_text()), fetch_keys(os.environ["STOCKADE_JWKS_URL"]), origins)
    except CannotComplete as error:
        sys.exit(f"gateway file: {error}")
    target.write_text(json.dumps(completed))
    print(f"gateway file: written, with {len(completed['consumers'][0]['jwt_secrets'])} public keys")


def _decode(name: str, text: str) -> bytes:
    number = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if len(number) != 32:
        raise CannotComplete(f"key {name!r} has a coordinate of {len(number)} bytes, not 32")
    return number


if __name__ == "__main__":
    main()
