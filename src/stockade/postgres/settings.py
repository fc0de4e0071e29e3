"""What the server is told on its command line, where neither a file nor ALTER SYSTEM can take it back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from stockade.postgres.sockets import PORT

_COMMON = MappingProxyType(
    {
        "listen_addresses": "",
        "port": str(PORT),
        "unix_socket_permissions": "0700",
        "password_encryption": "scram-sha-256",
        "logging_collector": "off",
        "log_destination": "stderr",
        "log_line_prefix": "%m [%p] ",
        "log_min_messages": "warning",
        "lc_messages": "C",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "max_connections": "100",
        "idle_in_transaction_session_timeout": "60s",
        "jit": "off",
    }
)
_DURABLE = MappingProxyType(
    {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "shared_buffers": "128MB"}
)
_FORGETFUL = MappingProxyType(
    {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "shared_buffers": "32MB"}
)

# What the promises of this package rest on. To change one is a mistake in the program, not a wish of a user.
_FIXED = frozenset(
    {
        "listen_addresses",
        "port",
        "unix_socket_directories",
        "unix_socket_permissions",
        "password_encryption",
        "logging_collector",
        "log_destination",
        "fsync",
        "full_page_writes",
        "hba_file",
        "data_directory",
    }
)


def server_settings(*, durable: bool, socket_directory: Path, wishes: Mapping[str, str]) -> dict[str, str]:
    """Our settings with the caller's `wishes` over them. Raises ValueError for a wish that would break a promise."""
    wishes = {name.lower(): value for name, value in wishes.items()}
    refused = _FIXED.intersection(wishes) | ({"synchronous_commit"}.intersection(wishes) if durable else set[str]())
    if refused:
        raise ValueError(f"These settings are the supervisor's own: {', '.join(sorted(refused))}")
    quoted = str(socket_directory).replace('"', '""')
    where = {"unix_socket_directories": f'"{quoted}"'}
    return {**_COMMON, **(_DURABLE if durable else _FORGETFUL), **where, **wishes}
