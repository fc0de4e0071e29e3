"""The keys of one cluster: two authorities, a certificate for every program, a kubeconfig for every user.

Made for one run and thrown away with it. Names and organizations are what Kubernetes itself authorizes by.
"""

import datetime
import ipaddress
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lab.network import ADDRESS, NODE_ADDRESSES

_VALID = datetime.timedelta(days=30)
# A clock that was set back a little must not make every certificate one of the future.
_LEEWAY = datetime.timedelta(minutes=5)
_LOOPBACK = ("localhost", "127.0.0.1")


@dataclass(frozen=True)
class Subject:
    """Who a certificate is for. `organization` is the group under which Kubernetes authorizes it."""

    file: str
    name: str
    organization: str | None = None
    addresses: tuple[str, ...] = ()


API_SERVER_ADDRESSES = (
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    ADDRESS,
    "10.96.0.1",
    *_LOOPBACK,
)

SUBJECTS = (
    Subject("api-server", "kube-apiserver", addresses=API_SERVER_ADDRESSES),
    Subject("etcd", "etcd", addresses=_LOOPBACK),
    Subject("api-server-etcd", "api-server-etcd"),
    Subject("api-server-kubelet", "api-server-kubelet", "lab:kubelet-admins"),
    Subject("admin", "lab-admin", "system:masters"),
    Subject("controller-manager", "system:kube-controller-manager", addresses=_LOOPBACK),
    Subject("scheduler", "system:kube-scheduler", addresses=_LOOPBACK),
    Subject("kube-proxy", "system:kube-proxy"),
    *(Subject(n, f"system:node:{n}", "system:nodes", (n, address)) for n, address in NODE_ADDRESSES.items()),
    Subject("kwok", "kwok", "lab:kwok", (ADDRESS, *_LOOPBACK)),
    Subject("metrics-server", "metrics-server", None, ("metrics-server.kube-system.svc", ADDRESS, *_LOOPBACK)),
)
USERS = ("admin", "controller-manager", "scheduler", "kube-proxy", *NODE_ADDRESSES, "kwok", "metrics-server")


class Authority:
    """A certificate authority whose key never leaves this process, but for the controller manager, which signs with it."""

    def __init__(self, name: str) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = _begin(self._name, self._name, self.key).add_extension(x509.BasicConstraints(True, 0), critical=True)
        builder = builder.add_extension(
            x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False
        )
        usage = _key_usage(signs_certificates=True)
        self.certificate = builder.add_extension(usage, critical=True).sign(self.key, hashes.SHA256())

    def issue(self, subject: Subject, directory: Path) -> None:
        """Write `FILE.crt` and `FILE.key`, good for both ends of a connection."""
        key = ec.generate_private_key(ec.SECP256R1())
        attributes = [x509.NameAttribute(NameOID.COMMON_NAME, subject.name)]
        if subject.organization is not None:
            attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, subject.organization))
        builder = _begin(x509.Name(attributes), self._name, key)
        builder = builder.add_extension(x509.BasicConstraints(False, None), critical=True)
        builder = builder.add_extension(_key_usage(signs_certificates=False), critical=True)
        purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        builder = builder.add_extension(purposes, critical=False)
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        builder = builder.add_extension(signer, critical=False)
        if subject.addresses:
            names = x509.SubjectAlternativeName(map(_alternative, subject.addresses))
            builder = builder.add_extension(names, critical=False)
        write_key(directory / f"{subject.file}.key", key)
        (directory / f"{subject.file}.crt").write_bytes(_pem(builder.sign(self.key, hashes.SHA256())))

    def write(self, directory: Path, file: str) -> None:
        (directory / f"{file}.crt").write_bytes(_pem(self.certificate))


def write_certificates(directory: Path) -> None:
    """Fill `directory` with all keys, certificates and kubeconfigs of a cluster."""
    directory.mkdir(parents=True, mode=0o700)
    authority, front = Authority("lab"), Authority("lab-front-proxy")
    authority.write(directory, "ca")
    write_key(directory / "ca.key", authority.key)
    front.write(directory, "front-ca")
    front.issue(Subject("front", "front-proxy-client"), directory)
    for subject in SUBJECTS:
        authority.issue(subject, directory)
    _write_service_account_keys(directory)
    write_kubeconfigs(directory, USERS)


def write_kubeconfigs(directory: Path, users: Iterable[str]) -> None:
    """Write `USER.conf` for each, by absolute paths, so that it works from anywhere on this machine."""
    cluster = {"server": f"https://{ADDRESS}:6443", "certificate-authority": str(directory / "ca.crt")}
    for user in users:
        identity = {"client-certificate": f"{directory / user}.crt", "client-key": f"{directory / user}.key"}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "lab", "cluster": cluster}],
            "users": [{"name": user, "user": identity}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": user}}],
            "current-context": "lab",
        }
        path = directory / f"{user}.conf"
        path.touch(mode=0o600)
        path.write_text(json.dumps(config, indent=2))


def write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )


def _write_service_account_keys(directory: Path) -> None:
    """The pair that signs and checks the tokens of ServiceAccounts."""
    key = ec.generate_private_key(ec.SECP256R1())
    write_key(directory / "service-accounts.key", key)
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (directory / "service-accounts.pub").write_bytes(public)


def _begin(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _LEEWAY)
        .not_valid_after(now + _VALID)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, key_cert_sign=signs_certificates, crl_sign=signs_certificates,
        content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _alternative(address: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        return x509.DNSName(address)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
