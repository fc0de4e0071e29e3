"""The keys of a cluster: who they are for, who signed them, and who can read them."""

import json
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import PolicyBuilder, Store

from lab.certificates import SUBJECTS, USERS, write_certificates


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("lab") / "keys"
    write_certificates(directory)
    return directory


def _load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.file)
def test_a_certificate_says_whose_it_is_and_no_more(keys: Path, subject) -> None:
    certificate = _load(keys / f"{subject.file}.crt")
    names = [a.value for a in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    groups = [a.value for a in certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    assert (names, groups) == ([subject.name], [subject.organization] if subject.organization else [])
    certificate.verify_directly_issued_by(_load(keys / "ca.crt"))


def test_a_client_can_verify_the_api_server_by_its_addresses(keys: Path) -> None:
    policy = PolicyBuilder().store(Store([_load(keys / "ca.crt")]))
    for name in ("kubernetes.default.svc", "localhost"):
        verifier = policy.build_server_verifier(x509.DNSName(name))
        assert len(verifier.verify(_load(keys / "api-server.crt"), [])) == 2


def test_only_the_administrator_is_a_master(keys: Path) -> None:
    masters = [subject.file for subject in SUBJECTS if subject.organization == "system:masters"]
    assert masters == ["admin"]


def test_the_front_proxy_has_an_authority_of_its_own(keys: Path) -> None:
    """Otherwise every certificate of the cluster could speak for any user."""
    front = _load(keys / "front.crt")
    front.verify_directly_issued_by(_load(keys / "front-ca.crt"))
    with pytest.raises(ValueError, match="does not match"):
        front.verify_directly_issued_by(_load(keys / "ca.crt"))


def test_nobody_else_reads_a_key(keys: Path) -> None:
    private = [path for path in keys.iterdir() if path.suffix in {".key", ".conf"}]
    assert len(private) == len(SUBJECTS) + len(USERS) + 3
    assert [path.name for path in private if path.stat().st_mode & 0o077] == []
    assert keys.stat().st_mode & 0o077 == 0


def test_a_kubeconfig_leads_to_files_that_are_there(keys: Path) -> None:
    for user in USERS:
        config = json.loads((keys / f"{user}.conf").read_text())
        cluster, identity = config["clusters"][0]["cluster"], config["users"][0]["user"]
        files = [cluster["certificate-authority"], identity["client-certificate"], identity["client-key"]]
        assert all(Path(file).is_file() for file in files)
