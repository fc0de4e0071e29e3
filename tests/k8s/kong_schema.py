"""The part of Kong 3.9's declarative format that our file uses, as a JSON Schema: what it does not know is refused.

Written from Kong's documentation of its entities and plugins, because neither Kong nor its own schema can be had from a package
index. Where Kong is at hand, `kong config parse` says the last word (k8s/base/gateway/README.md).
"""

from typing import Any

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string", "minLength": 1}
_FLAG: Schema = {"type": "boolean"}
_TEXTS: Schema = {"type": "array", "items": _TEXT}
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"]
_TIMEOUT_MS: Schema = {"type": "integer", "minimum": 1, "maximum": 2**31 - 2}
_RATE: Schema = {"type": "integer", "minimum": 1}
_NAME: Schema = {"type": "string", "pattern": r"^[A-Za-z0-9._~-]+$"}


def _object(required: str = "", **properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


_CONFIGS: dict[str, Schema] = {
    "correlation-id": _object(
        "header_name generator echo_downstream",
        header_name=_TEXT,
        generator={"enum": ["uuid", "uuid#counter", "tracker"]},
        echo_downstream=_FLAG,
    ),
    "cors": _object(
        "origins methods credentials",
        origins={"type": "array", "minItems": 1, "items": {"type": "string", "pattern": r"^https://[^*/\s]+$"}},
        methods={"type": "array", "items": {"enum": _METHODS}},
        headers=_TEXTS,
        exposed_headers=_TEXTS,
        credentials=_FLAG,
        max_age={"type": "integer", "minimum": 0},
        preflight_continue=_FLAG,
        private_network=_FLAG,
    ),
    "jwt": _object(
        "key_claim_name claims_to_verify header_names uri_param_names cookie_names",
        key_claim_name=_TEXT,
        claims_to_verify={"type": "array", "items": {"enum": ["exp", "nbf"]}},
        header_names=_TEXTS,
        uri_param_names=_TEXTS,
        cookie_names=_TEXTS,
        maximum_expiration={"type": "integer", "minimum": 0, "maximum": 31536000},
        run_on_preflight=_FLAG,
    ),
    "prometheus": _object(
        status_code_metrics=_FLAG, latency_metrics=_FLAG, bandwidth_metrics=_FLAG, upstream_health_metrics=_FLAG
    ),
    "rate-limiting": _object(
        "policy limit_by",
        policy={"const": "local"},
        limit_by={"enum": ["consumer", "credential", "ip", "service", "header", "path"]},
        second=_RATE,
        minute=_RATE,
        hour=_RATE,
        fault_tolerant=_FLAG,
        hide_client_headers=_FLAG,
    ),
    "request-size-limiting": _object(
        "allowed_payload_size size_unit",
        allowed_payload_size={"type": "integer", "minimum": 1},
        size_unit={"enum": ["bytes", "kilobytes", "megabytes"]},
        require_content_length=_FLAG,
    ),
    "response-transformer": _object(
        "add", add=_object("headers", headers={"type": "array", "items": {"type": "string", "pattern": r"^[\w-]+:.+$"}})
    ),
}

_PLUGIN: Schema = {
    "oneOf": [
        _object("name config", name={"const": name}, config=config, enabled=_FLAG) for name, config in _CONFIGS.items()
    ]
}
_ROUTE = _object(
    "name protocols paths strip_path plugins",
    name=_NAME,
    protocols={"const": ["http"]},
    methods={"type": "array", "minItems": 1, "items": {"enum": _METHODS}},
    # Kong takes a path for a regular expression when it begins with a tilde, and for a prefix otherwise.
    paths={"type": "array", "minItems": 1, "items": {"type": "string", "pattern": "^~/"}},
    strip_path=_FLAG,
    preserve_host=_FLAG,
    request_buffering=_FLAG,
    response_buffering=_FLAG,
    regex_priority={"type": "integer"},
    plugins={"type": "array", "items": _PLUGIN},
)
_SERVICE = _object(
    "name protocol host port connect_timeout read_timeout write_timeout retries routes",
    name=_NAME,
    protocol={"enum": ["http", "https"]},
    host={"type": "string", "format": "hostname", "pattern": r"^[a-z0-9.-]+$"},
    port={"type": "integer", "minimum": 1, "maximum": 65535},
    connect_timeout=_TIMEOUT_MS,
    read_timeout=_TIMEOUT_MS,
    write_timeout=_TIMEOUT_MS,
    retries={"type": "integer", "minimum": 0, "maximum": 32767},
    routes={"type": "array", "minItems": 1, "items": _ROUTE},
)
_CREDENTIAL = _object(
    "key algorithm rsa_public_key",
    key=_TEXT,
    algorithm={"const": "ES256"},
    # Kong's name for the public key of every asymmetric algorithm.
    rsa_public_key={"type": "string", "pattern": "^-----BEGIN PUBLIC KEY-----"},
)
_CONSUMER = _object("username jwt_secrets", username=_NAME, jwt_secrets={"type": "array", "items": _CREDENTIAL})

SCHEMA: Schema = _object(
    "_format_version _transform services plugins",
    _format_version={"const": "3.0"},
    _transform={"const": True},
    services={"type": "array", "minItems": 1, "items": _SERVICE},
    plugins={"type": "array", "items": _PLUGIN},
    consumers={"type": "array", "items": _CONSUMER},
)
