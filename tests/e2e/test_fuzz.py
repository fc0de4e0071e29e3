"""Thousands of requests drawn from the OpenAPI document: no failure of ours, and every answer as documented."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from tests.e2e.filled import Product, filled_product
from tests.e2e.processes import succeed

ROOT = Path(__file__).parents[2]
EXAMPLES_MAX = 20
LIMIT_S = 240

pytestmark = pytest.mark.timeout(300)


async def test_what_is_drawn_from_the_document_is_answered_as_documented():
    async with filled_product() as product:
        token = product.token("admin")
        output = await fuzz(product.url, token, name_known(product))
        assert "Fuzzing" in output
        log = (product.data / "stockade.log").read_text()
        assert [line for line in log.splitlines() if '"log.level":"error"' in line] == []
        await succeed("integrity", "--data", str(product.data), environment={})


async def fuzz(url: str, token: str, known: dict[str, str]) -> str:
    """Run Schemathesis, the same cases each time, as `fuzzing.toml` and `fuzz_hooks.py` say; fails with what it found."""
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(Path(__file__).with_name("fuzzing.toml"))]
    command += [
        "run",
        f"{url}/openapi.json",
        "--header",
        f"Authorization: Bearer {token}",
        "--generation-deterministic",
    ]
    command += ["--phases", "examples,coverage,fuzzing", "--max-examples", str(EXAMPLES_MAX), "--continue-on-failure"]
    command += ["--workers", "2", "--request-timeout", "20", "--no-color"]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, env=os.environ | {"STOCKADE_FUZZ_KNOWN": json.dumps(known)},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        output = (await asyncio.wait_for(process.communicate(), LIMIT_S))[0].decode()
    except TimeoutError:
        process.kill()
        raise
    assert process.returncode == 0, output
    return output


def name_known(product: Product) -> dict[str, str]:
    """What `fuzz_hooks.KNOWN` wants: values of things that exist, by member of a body or by address and its parameter."""
    ids = product.ids
    members = {
        "sku": "A-1",
        "warehouse": "MAIN",
        "customer": "ANN",
        "supplier": "LEAF",
        "unit": "each",
        "category": "POTS",
    }
    members |= {"order_id": ids["orders"], "line_id": ids["purchase-order line"]}
    parameters = {
        f"{operation.path.strip('/').partition('/')[0]} {parameter['name']}": product.ids[
            operation.path.strip("/").partition("/")[0]
        ]
        for operation in product.operations
        for parameter in operation.document.get("parameters", ())
        if parameter["in"] == "path"
    }
    return members | parameters
