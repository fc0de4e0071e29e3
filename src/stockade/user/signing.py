"""The key with which tokens are signed, made from the secret `jwt-secret`, and its public half for everybody else.

Each line of the secret is key material for one ES256 key: HKDF-SHA256 (RFC 5869) stretches it to 384 bits, which are
reduced to a private scalar of P-256 by "extra random bits" (FIPS 186-5, A.2.1). So every replica signs with the same key
and nothing secret is in the database. The first line signs and all lines verify: to rotate, put a new line first, and
remove the old one when the longest token lifetime has passed.
"""

import functools
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc import jwt
from joserfc.jwk import ECKey

from stockade.kit.auth import ALGORITHM
from stockade.kit.errors import ConfigurationError

_ORDER_OF_P256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_LINE_LENGTH_MIN = 32
_KEYS_MAX = 5


@dataclass(frozen=True)
class SigningKeys:
    """The keys of a secret, the signing one first."""

    keys: tuple[ECKey, ...]

    def sign(self, claims: dict[str, Any]) -> str:
        key = self.keys[0]
        return jwt.encode(
            {"alg": ALGORITHM, "kid": key.thumbprint(), "typ": "JWT"}, claims, key, algorithms=[ALGORITHM]
        )

    def public_document(self) -> dict[str, Any]:
        """The JWKS (RFC 7517) with the public half of every key."""
        return {
            "keys": [
                {**key.as_dict(private=False), "kid": key.thumbprint(), "use": "sig", "alg": ALGORITHM}
                for key in self.keys
            ]
        }


@functools.lru_cache(maxsize=4)
def read_signing_keys(secret: str) -> SigningKeys:
    """The keys of a secret of one to five lines, each of at least 32 characters."""
    lines = [line.strip() for line in secret.splitlines() if line.strip()]
    if not 1 <= len(lines) <= _KEYS_MAX or any(len(line) < _LINE_LENGTH_MIN for line in lines):
        raise ConfigurationError(
            f"STOCKADE_JWT_SECRET needs one to {_KEYS_MAX} lines of at least {_LINE_LENGTH_MIN} characters: "
            "`openssl rand -hex 32` makes one"
        )
    return SigningKeys(tuple(_derive(line) for line in lines))


def _derive(line: str) -> ECKey:
    bits = HKDF(hashes.SHA256(), 48, salt=None, info=b"stockade token signing key, ES256").derive(line.encode())
    scalar = int.from_bytes(bits) % (_ORDER_OF_P256 - 1) + 1
    pem = ec.derive_private_key(scalar, ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return ECKey.import_key(pem)
