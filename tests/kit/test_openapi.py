"""The OpenAPI documents: valid, complete, and honest about decimals, problems and keys."""

import functools
import json
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from jsonschema_rs import meta

from stockade.front import merge_openapi
from stockade.kit.app import create_app
from stockade.kit.errors import PROBLEM_TYPE
from stockade.kit.settings import DatabaseAccess, Secret, Settings
from stockade.targets import NAMES, SERVICES, service_named
from tests.kit.probe import make_context

SETTINGS = Settings(environment="development", database=DatabaseAccess(Secret("url", value="postgresql://nowhere/x")))
services = pytest.mark.parametrize("name", NAMES)
METHODS = ("get", "post", "put", "patch", "delete")


@functools.cache
def document_of(name: str) -> dict[str, Any]:
    return create_app(make_context(SETTINGS, service=service_named(name))).openapi()


def walk(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    yield path, node
    members = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in members:
        yield from walk(value, f"{path}/{key}")


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                yield path, method, item[method]


def schemas_of(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from document["components"]["schemas"].items()


@services
def test_it_is_openapi_3_1_and_json(name: str):
    document = document_of(name)
    assert document["openapi"].startswith("3.1")
    schemathesis.openapi.from_dict(document).validate()
    assert json.loads(json.dumps(document)) == document
    assert document["info"]["title"].endswith(name)
    for path, method, operation in operations(document):
        assert operation["responses"], (path, method)
        assert path.startswith("/api/v1/"), path


@services
def test_every_schema_is_one_and_every_reference_leads_somewhere(name: str):
    document = document_of(name)
    for _, schema in schemas_of(document):
        meta.validate(schema)
    for path, node in walk(document):
        if path.endswith("/$ref"):
            assert node.startswith("#/components/schemas/")
            assert node.rpartition("/")[2] in document["components"]["schemas"], path


@services
def test_operations_have_names_of_their_own(name: str):
    names = [operation["operationId"] for _, _, operation in operations(document_of(name))]
    assert len(names) == len(set(names))


@services
def test_what_is_counted_or_priced_is_a_text_with_a_pattern(name: str):
    """No JSON number with a fraction anywhere; every field of a decimal's name is a text with a pattern."""
    document = document_of(name)
    for path, node in walk(document):
        assert not (isinstance(node, dict) and node.get("type") == "number"), path
    words = ("quantity", "price", "cost", "on_hand", "reserved", "available", "allocated", "consumed", "sellable")
    for owner, schema in schemas_of(document):
        for field, shape in schema.get("properties", {}).items():
            if field.endswith(words) and not field.startswith("is_"):
                variants = [each for each in shape.get("anyOf", [shape]) if each.get("type") != "null"]
                assert all(each.get("type") == "string" and each.get("pattern") for each in variants), (
                    owner,
                    field,
                    shape,
                )


def references_in(node: Any) -> set[str]:
    return {value.rpartition("/")[2] for path, value in walk(node) if path.endswith("/$ref")}


def shapes_sent(document: dict[str, Any]) -> dict[str, Any]:
    """The schemas of request bodies, and all that they are made of."""
    todo = [
        name for _, _, operation in operations(document) for name in references_in(operation.get("requestBody", {}))
    ]
    found: dict[str, Any] = {}
    while todo:
        if (name := todo.pop()) not in found:
            found[name] = document["components"]["schemas"][name]
            todo += references_in(found[name])
    return found


@services
def test_every_object_that_is_sent_refuses_unknown_members(name: str):
    shapes = shapes_sent(document_of(name))
    assert shapes
    for shape_name, shape in shapes.items():
        if shape["type"] == "object":
            assert shape["additionalProperties"] is False, shape_name


@services
def test_every_list_and_every_text_that_is_sent_has_a_bound(name: str):
    for shape_name, shape in shapes_sent(document_of(name)).items():
        for path, node in walk(shape):
            if isinstance(node, dict) and node.get("type") == "array":
                assert "maxItems" in node, (shape_name, path)
            if isinstance(node, dict) and node.get("type") == "string":
                bounds = {"maxLength", "pattern", "enum", "const", "format"}
                assert bounds & set(node), (shape_name, path)


@services
def test_problems_are_documented_and_every_answer_has_a_shape(name: str):
    for path, method, operation in operations(document_of(name)):
        for group in ("4XX", "5XX"):
            assert PROBLEM_TYPE in operation["responses"][group]["content"], (path, method)
        (good,) = [code for code in operation["responses"] if code.startswith("2")]
        if good != "204":
            assert operation["responses"][good]["content"]["application/json"]["schema"], (path, method)


@services
def test_everything_but_signing_in_asks_for_a_token(name: str):
    free = {"/api/v1/auth/login", "/api/v1/auth/refresh", "/api/v1/auth/logout", "/api/v1/.well-known/jwks.json"}
    for path, method, operation in operations(document_of(name)):
        assert bool(operation.get("security")) == (path not in free), (path, method)


@services
def test_lists_have_a_bounded_page_and_a_cursor(name: str):
    for path, method, operation in operations(document_of(name)):
        parameters = {parameter["name"]: parameter["schema"] for parameter in operation.get("parameters", [])}
        if method == "get" and "limit" in parameters:
            assert parameters["limit"]["maximum"] <= 1_000, path
            assert "cursor" in parameters, path


@services
def test_every_post_that_makes_something_takes_an_idempotency_key(name: str):
    """Not those that carry a key for every part, nor those about sessions."""
    exempt = ("/bulk", "/auth/")
    for path, method, operation in operations(document_of(name)):
        if method == "post" and not any(part in path for part in exempt):
            names = {parameter["name"] for parameter in operation.get("parameters", [])}
            assert "Idempotency-Key" in names, path


def test_the_merged_document_holds_everything_once_and_every_reference_leads_somewhere():
    documents = {name: document_of(name) for name in NAMES}
    merged = merge_openapi(documents)
    for document in documents.values():
        assert set(document["paths"]) <= set(merged["paths"])
    assert len(merged["paths"]) == sum(len(document["paths"]) for document in documents.values())
    for path, node in walk(merged):
        if path.endswith("/$ref"):
            assert node.rpartition("/")[2] in merged["components"]["schemas"], path


def test_each_service_stays_within_the_names_that_it_owns():
    for service in SERVICES:
        for path in document_of(service.name)["paths"]:
            assert path.removeprefix("/api/v1/").partition("/")[0] in service.owns, (service.name, path)
