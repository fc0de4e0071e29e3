"""A small Stockade to be killed: starts a server, commits row after row and prints each number once it is committed.

Run by the tests as a process of its own: `writer.py DIRECTORY [--once]`. Its first line is the server's process id.
"""

import asyncio
import sys
from pathlib import Path

import asyncpg

from stockade.postgres import PostgresError, PostgresServer


async def write(directory: Path, *, once: bool) -> None:
    server = await PostgresServer.start(directory)
    watching = asyncio.create_task(server.watch())
    print(server.process_id, flush=True)
    connection = await asyncpg.connect(server.url)
    await connection.execute("CREATE TABLE IF NOT EXISTS rows (number bigint PRIMARY KEY)")
    number = await connection.fetchval("SELECT coalesce(max(number), 0) FROM rows")
    while True:
        number += 1
        await connection.execute("INSERT INTO rows VALUES ($1)", number)
        print(number, flush=True)
        if once:
            break
    await connection.close()
    await server.stop()
    await watching


try:
    asyncio.run(write(Path(sys.argv[1]), once="--once" in sys.argv))
except PostgresError as error:
    print(error, flush=True)
    sys.exit(1)
