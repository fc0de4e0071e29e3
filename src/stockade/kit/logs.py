"""Logs: one JSON object a line, with Elastic Common Schema field names, on standard output or in a bounded file.

Request id, trace id and actor come from context variables that the request gate sets, so that every line of a request
carries them. Secrets and personal data are never passed to a logger; the actor is an identifier.
"""

import logging
import sys
from contextvars import ContextVar
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, TextIO, cast

import ecs_logging
import structlog

request_id: ContextVar[str] = ContextVar("request_id", default="")
trace_id: ContextVar[str] = ContextVar("trace_id", default="")
actor_id: ContextVar[str] = ContextVar("actor_id", default="")

_FILE_BYTES = 10_000_000
_FILES_KEPT = 3


def start_logging(*, directory: Path | None = None, stream: TextIO = sys.stdout) -> None:
    """Send what this process logs, libraries included, to a stream or to `stockade.log` in a directory. Call once."""
    if directory is None:
        handler: logging.Handler = logging.StreamHandler(stream)
    else:
        handler = RotatingFileHandler(directory / "stockade.log", maxBytes=_FILE_BYTES, backupCount=_FILES_KEPT)
    handler.setFormatter(_LineFormatter(exclude_fields=["process", "log.original"]))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger(_OWN).setLevel(logging.INFO)
    structlog.configure(
        processors=[
            _add_request,
            structlog.processors.format_exc_info,
            cast("Any", ecs_logging.StructlogFormatter()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: logging.getLogger(_OWN),
        cache_logger_on_first_use=True,
    )


def get_logger(service: str) -> Any:
    """A logger whose lines name the service."""
    return structlog.get_logger().bind(**{"service.name": service})


_OWN = "stockade"


class _LineFormatter(ecs_logging.StdlibFormatter):
    """Our own lines arrive finished; those of libraries get the same form."""

    def format(self, record: logging.LogRecord) -> str:
        return str(record.msg) if record.name == _OWN else super().format(record)


def _add_request(_: Any, method: str, event: Any) -> Any:
    event["log.level"] = method
    for field, variable in (("http.request.id", request_id), ("trace.id", trace_id), ("user.id", actor_id)):
        if value := variable.get():
            event[field] = value
    return event
