"""Kong's file: made from the table of services, closed but for a few routes, and completed when a pod starts."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from joserfc import jwt
from joserfc.errors import BadSignatureError
from joserfc.jwk import ECKey
from jsonschema import Draft202012Validator

from k8s.base.gateway import gateway_file
from k8s.tools.kong import FILE, OPEN_ROUTES, build_declaration
from stockade.targets import SERVICES
from stockade.user.signing import read_signing_keys
from tests.k8s.kong_schema import SCHEMA

SECRET = "0123456789abcdef0123456789abcdef-new\nfedcba9876543210fedcba9876543210-old"
DECLARATION = build_declaration()
ROUTES = [(service["name"], route) for service in DECLARATION["services"] for route in service["routes"]]


def find_route(method: str, path: str) -> tuple[str, str] | None:
    """Service and route of a request, as Kong decides it: highest priority first, expressions anchored at the start."""
    for service, route in sorted(ROUTES, key=lambda row: -row[1].get("regex_priority", 0)):
        if method in route.get("methods", [method]) and any(
            re.match(p.removeprefix("~"), path) for p in route["paths"]
        ):
            return service, route["name"]
    return None


def test_the_committed_file_is_current() -> None:
    assert json.loads(FILE.read_text()) == DECLARATION, "run python -m k8s.tools.kong"


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_every_public_route_of_a_service_leads_to_it_and_no_other_leads_anywhere(service: Any) -> None:
    paths = [
        (method, re.sub(r"{[^}]+}", "x", route.path))
        for router in service.routers
        for route in router.routes
        for method in route.methods
    ]
    assert paths
    for method, path in paths:
        found = find_route(method, path)
        expected = None if path.startswith("/internal") else service.name
        assert (found[0] if found else None) == expected, path


@pytest.mark.parametrize(
    "path",
    ["/internal/events", "/health", "/health/ready", "/metrics", "/openapi.json", "/", "/api/v1", "/api/v1/stockholders",
     "/api/v1/internal/events", "/api/v2/stock", "/x/api/v1/stock", "/.well-known/other"],
)  # fmt: skip
def test_nothing_else_is_reachable(path: str) -> None:
    assert find_route("GET", path) is None


def test_only_signing_in_and_the_public_keys_need_no_token() -> None:
    unguarded = {route["name"] for _, route in ROUTES if "jwt" not in [plugin["name"] for plugin in route["plugins"]]}
    assert unguarded == set(OPEN_ROUTES)
    opened = [("POST", f"/api/v1/auth/{verb}") for verb in ("login", "refresh", "logout")]
    opened += [("GET", "/.well-known/jwks.json"), ("GET", "/api/v1/.well-known/jwks.json")]
    assert {find_route(*request) for request in opened} == {("user-service", name) for name in OPEN_ROUTES}
    for method, path in (
        ("GET", "/api/v1/auth/login"),
        ("POST", "/api/v1/auth/login/x"),
        ("POST", "/api/v1/auth/password"),
    ):
        assert find_route(method, path) == ("user-service", "user-service")


def test_cors_is_closed_before_and_after_it_is_told_the_origins() -> None:
    jwks = read_signing_keys(SECRET).public_document()
    completed = gateway_file.complete(DECLARATION, jwks, ["https://stock.example.com"])
    for declaration, origins in (
        (DECLARATION, ["https://stockade.invalid"]),
        (completed, ["https://stock.example.com"]),
    ):
        (cors,) = [plugin for plugin in declaration["plugins"] if plugin["name"] == "cors"]
        assert cors["config"]["origins"] == origins


def test_kong_gets_a_key_for_every_line_of_the_secret_that_verifies_its_tokens() -> None:
    keys = read_signing_keys(SECRET)
    completed = gateway_file.complete(DECLARATION, keys.public_document(), ["https://stock.example.com"])
    (consumer,) = completed["consumers"]
    known = {secret["key"]: secret for secret in consumer["jwt_secrets"]}
    assert set(known) == {key.thumbprint() for key in keys.keys}
    token = keys.sign({"sub": "somebody"})
    signing = known[keys.keys[0].thumbprint()]
    assert signing["algorithm"] == "ES256"
    assert (
        jwt.decode(token, ECKey.import_key(signing["rsa_public_key"]), algorithms=["ES256"]).claims["sub"] == "somebody"
    )
    other = known[keys.keys[1].thumbprint()]["rsa_public_key"]
    load_pem_public_key(other.encode())
    with pytest.raises(BadSignatureError):
        jwt.decode(token, ECKey.import_key(other), algorithms=["ES256"])


def test_what_the_script_fills_in_is_what_kong_accepts() -> None:
    keys = read_signing_keys(SECRET).public_document()
    completed = gateway_file.complete(DECLARATION, keys, ["https://stock.example.com", "https://shop.example.com"])
    validator = Draft202012Validator(SCHEMA)
    assert [error.message for error in validator.iter_errors(completed)] == []
    completed["consumers"][0]["jwt_secrets"][0]["algorithm"] = "HS256"
    assert [error.json_path for error in validator.iter_errors(completed)] == [
        "$.consumers[0].jwt_secrets[0].algorithm"
    ]


@pytest.mark.parametrize(
    "damage",
    [{"kty": "oct", "k": "c2VjcmV0"}, {"crv": "P-384"}, {"alg": "HS256"}, {"x": "AAAA"}, {"y": ""}, {"kid": ""}],
    ids=lambda damage: next(iter(damage)),
)
def test_it_refuses_a_key_that_is_no_public_key_of_ours(damage: dict[str, str]) -> None:
    jwks = read_signing_keys(SECRET).public_document()
    jwks["keys"][0].update(damage)
    with pytest.raises(gateway_file.CannotComplete):
        gateway_file.complete(DECLARATION, jwks, ["https://stock.example.com"])


@pytest.mark.parametrize("origins", [[], ["*"], ["http://stock.example.com"]], ids=["none", "all", "plain"])
def test_it_refuses_origins_that_would_open_it(origins: list[str]) -> None:
    with pytest.raises(gateway_file.CannotComplete):
        gateway_file.complete(DECLARATION, read_signing_keys(SECRET).public_document(), origins)


def test_the_script_writes_the_file_as_the_container_runs_it(tmp_path: Path) -> None:
    with serve_json(read_signing_keys(SECRET).public_document()) as url:
        done = run_script(tmp_path, url)
    assert done.returncode == 0, done.stderr
    assert len(json.loads((tmp_path / "kong.json").read_text())["consumers"][0]["jwt_secrets"]) == 2


def test_the_script_fails_with_one_line_when_the_keys_cannot_be_used(tmp_path: Path) -> None:
    with serve_json({"keys": []}) as url:
        done = run_script(tmp_path, url)
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["gateway file: the JWKS has 0 keys, not one to 5"]
    assert not (tmp_path / "kong.json").exists()


@contextmanager
def serve_json(document: dict[str, Any]) -> Generator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(document).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/.well-known/jwks.json"
    finally:
        server.shutdown()
        server.server_close()


def run_script(target: Path, url: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "STOCKADE_JWKS_URL": url,
        "STOCKADE_GATEWAY_SOURCE": str(FILE),
        "STOCKADE_GATEWAY_TARGET": str(target / "kong.json"),
        "STOCKADE_ORIGINS": "https://stock.example.com",
    }
    script = str(FILE.with_name("gateway_file.py"))
    return subprocess.run(
        [sys.executable, "-I", script], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
