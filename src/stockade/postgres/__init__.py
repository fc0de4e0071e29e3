"""PostgreSQL for one machine: found, run, watched, and prepared for the services.

Owns the server of `stockade up` and of the tests: the search for its programs, its data directory, its process, and
the bootstrap of database, schemas and roles, which works on any other server as well.

Promises:

- It runs when called by root (PostgreSQL is switched to another account) and by an ordinary user.
- There is no TCP listener and no `trust`: one Unix socket in a directory that is closed to others, SCRAM behind it.
- What was acknowledged is kept, whatever is killed: the server, this process, or both.
- A server whose Stockade is killed shuts down by itself (Linux) or is shut down by the next one.
- Whatever does not work is one `PostgresError` of one line, with the path and what to do.

It imports nothing else of Stockade.
"""

from stockade.postgres.binaries import Binaries, find_binaries
from stockade.postgres.bootstrap import OWNER_ROLE, bootstrap, role_of
from stockade.postgres.errors import DirectoryInUse, PostgresError
from stockade.postgres.locks import DataLock, hold_directory
from stockade.postgres.server import PostgresServer
from stockade.postgres.sockets import find_socket_directory

__all__ = [
    "OWNER_ROLE",
    "Binaries",
    "DataLock",
    "DirectoryInUse",
    "PostgresError",
    "PostgresServer",
    "bootstrap",
    "find_binaries",
    "find_socket_directory",
    "hold_directory",
    "role_of",
]
