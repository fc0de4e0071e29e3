"""Kong's declarative file, made from the table of services: `python -m k8s.tools.kong` writes it again.

A public name has a route because a service owns it in `stockade.targets`; nothing else has one, /internal least of all.
Everything needs a valid token but the few routes of `OPEN_ROUTES`. What the file cannot know before there is a cluster,
the public keys of the tokens and the origins of browsers, is filled in by `k8s/base/gateway/gateway_file.py` when a pod starts.
"""

import json
from pathlib import Path
from typing import Any

from stockade.kit.context import Service
from stockade.targets import SERVICES

FILE = Path(__file__).parents[1] / "base/gateway/kong.json"
OPEN_ROUTES: dict[str, dict[str, Any]] = {
    "sign-in": {
        "paths": ["~/api/v1/auth/(?:login|refresh|logout)$"],
        # With OPTIONS, so that a browser's preflight finds the route whose CORS answer it needs.
        "methods": ["POST", "OPTIONS"],
    },
    "public-keys": {
        "paths": [r"~/\.well-known/jwks\.json$", r"~/api/v1/\.well-known/jwks\.json$"],
        "methods": ["GET", "HEAD", "OPTIONS"],
    },
}
"""Routes of the user-service that need no token: how to get one, and how to verify one."""

_SECURITY_HEADERS = (
    "Cache-Control:no-store",
    "Content-Security-Policy:default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy:same-origin",
    "Permissions-Policy:camera=(), geolocation=(), microphone=()",
    "Referrer-Policy:no-referrer",
    "X-Content-Type-Options:nosniff",
    "X-Frame-Options:DENY",
)
_EXPOSED_HEADERS = ["ETag", "Location", "Retry-After", "X-Request-ID"]
_ACCEPTED_HEADERS = [
    "Authorization", "Content-Type", "Idempotency-Key", "If-Match", "If-None-Match", "Last-Event-ID", "X-Request-ID",
    "traceparent",
]  # fmt: skip


def build_declaration() -> dict[str, Any]:
    """The whole file: a service with its routes for each row of the table, and the plugins that every request passes."""
    return {
        "_format_version": "3.0",
        "_transform": True,
        "services": [_describe(service) for service in SERVICES],
        "plugins": _plugins_of_everything(),
    }


def write(path: Path = FILE) -> None:
    path.write_text(json.dumps(build_declaration(), indent=2) + "\n")


def _describe(service: Service) -> dict[str, Any]:
    routes = [_route(service.name, [_path_of(name) for name in service.owns if name[0].isalpha()], [_verify_token()])]
    if service.name == "user-service":
        routes += [
            # The priority puts them before the route that owns all of /auth; the order in the file means nothing.
            _route(name, route["paths"], [], methods=route["methods"], regex_priority=10)
            for name, route in OPEN_ROUTES.items()
        ]
        routes[1]["plugins"].append(_limit_rate(second=5, minute=60))
    return {
        "name": service.name,
        "protocol": "http",
        "host": f"{service.name}.inventory-system.svc.cluster.local",
        "port": 80,
        "connect_timeout": 2_000,
        # A little more than a request may take in a service, so that the service and not Kong says that time is over.
        "read_timeout": 35_000,
        "write_timeout": 35_000,
        # nginx repeats only what surely was not carried out: a connection that failed, or a method that is idempotent.
        "retries": 2,
        "routes": routes,
    }


def _route(name: str, paths: list[str], plugins: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "protocols": ["http"],
        "paths": paths,
        "strip_path": False,
        "preserve_host": False,
        "request_buffering": True,
        # Streams of events reach their reader event by event.
        "response_buffering": False,
        **more,
        "plugins": plugins,
    }


def _path_of(name: str) -> str:
    """A regular expression, because a plain path is a prefix: /api/v1/stock would also be /api/v1/stockholders."""
    return f"~/api/v1/{name}(?:/|$)"


def _verify_token() -> dict[str, Any]:
    return {
        "name": "jwt",
        "config": {
            "key_claim_name": "kid",
            "claims_to_verify": ["exp"],
            # From the header alone: a token in an address ends up in logs, and one in a cookie is sent by other sites.
            "header_names": ["authorization"],
            "uri_param_names": [],
            "cookie_names": [],
        },
    }


def _limit_rate(*, second: int, minute: int) -> dict[str, Any]:
    """Counted in each pod of Kong apart: with two pods a client has up to twice as much."""
    return {
        "name": "rate-limiting",
        "config": {"policy": "local", "limit_by": "ip", "second": second, "minute": minute, "fault_tolerant": True},
    }


def _plugins_of_everything() -> list[dict[str, Any]]:
    return [
        {
            "name": "correlation-id",
            "config": {"header_name": "X-Request-ID", "generator": "uuid", "echo_downstream": True},
        },
        {
            "name": "cors",
            "config": {
                # Replaced when a pod starts. Never empty: Kong would take that for every origin.
                "origins": ["https://stockade.invalid"],
                "methods": ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
                "headers": _ACCEPTED_HEADERS,
                "exposed_headers": _EXPOSED_HEADERS,
                "credentials": False,
                "max_age": 600,
                "preflight_continue": False,
            },
        },
        _limit_rate(second=200, minute=6_000),
        # The same bound as the services': STOCKADE_BODY_LIMIT_BYTES.
        {
            "name": "request-size-limiting",
            "config": {"allowed_payload_size": 1_048_576, "size_unit": "bytes", "require_content_length": False},
        },
        # `add` leaves alone what a service has said itself. Strict-Transport-Security is the Gateway's, which has the TLS.
        {"name": "response-transformer", "config": {"add": {"headers": list(_SECURITY_HEADERS)}}},
        {
            "name": "prometheus",
            "config": {"status_code_metrics": True, "latency_metrics": True, "bandwidth_metrics": True},
        },
    ]


if __name__ == "__main__":
    write()
