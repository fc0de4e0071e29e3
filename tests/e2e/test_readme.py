"""The README's walk through a day works as printed."""

import asyncio
import json
import re
from pathlib import Path

from tests.e2e.processes import Running, passable_directory

README = Path(__file__).parents[2] / "README.md"


async def test_the_day_of_the_readme_works_as_printed():
    text = README.read_text()
    (walk,) = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    environment = dict(re.findall(r"(STOCKADE_ADMIN_\w+)='?([^\n]*?)'? (?=STOCKADE|make)", text))
    assert set(environment) == {"STOCKADE_ADMIN_EMAIL", "STOCKADE_ADMIN_PASSWORD"}
    with passable_directory() as directory:
        up = await Running.start("up", "--data", str(directory / "data"), "--port", "0", environment=environment)
        try:
            address = (await up.wait_for(r"ready in .* (http://\S+)")).group(1)
            script = walk.replace("http://127.0.0.1:8080", address)
            assert script != walk
            shell = await asyncio.create_subprocess_exec(
                "bash",
                "-euo",
                "pipefail",
                "-c",
                script,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            output = (await asyncio.wait_for(shell.communicate(), 60))[0].decode()
        finally:
            await up.end()
    assert shell.returncode == 0, output
    assert output.endswith("\n0\n"), output
    stock = json.loads(output[output.rindex('{\n    "items"') :].rsplit("}", 1)[0] + "}")
    assert {level["sku"]: level["available"] for level in stock["items"]} == {"TEA-1": "15", "MUG-1": "19"}
    assert output.count('"code": "insufficient_stock"') == 1, output
