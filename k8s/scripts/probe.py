"""Says of each HOST:PORT that it is given whether a connection is possible from where this runs: `open`, `closed` or `unresolved`.

verify.sh hands this text to the Python of a running service, whose image has no other tool that could ask. `closed` does
not tell a policy that drops from one that rejects, nor from a server that is down: what matters is that no connection came about.
"""

import socket
import sys
from concurrent.futures import ThreadPoolExecutor

_TIMEOUT_S = 3


def probe(target: str) -> str:
    host, _, port = target.rpartition(":")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
    except OSError:
        return "unresolved"
    with socket.socket(family, kind) as connection:
        connection.settimeout(_TIMEOUT_S)
        try:
            connection.connect(address)
        except OSError:
            return "closed"
    return "open"


if __name__ == "__main__":
    targets = sys.argv[1:]
    # All at once, because a policy that drops answers with silence.
    with ThreadPoolExecutor(len(targets)) as threads:
        for name, result in zip(targets, threads.map(probe, targets), strict=True):
            print(name, result)
