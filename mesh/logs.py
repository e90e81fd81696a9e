"""Structured logs: one line per event, ids in readable form, never a token or a ciphertext."""

import contextlib
import logging
import re
import sys
from collections.abc import Iterator, MutableMapping
from typing import Any

import structlog
from structlog.typing import Processor

from mesh.ids import ID_BYTES, ulid_text

_HIDDEN = "(hidden)"
# Their lines would bury ours, and some write down URLs and headers that are secrets.
_CHATTY = ("asyncio", "grpc", "hpack", "httpcore", "httpx", "opentelemetry", "urllib3")
_SECRET_NAMES = re.compile(
    r"token|password|secret|authorization|ciphertext|private|dsn", re.IGNORECASE
)
# A JSON Web Token wherever it turns up, and the password of a URL.
_SECRET_TEXT = re.compile(r"eyJ[\w-]{8,}\.[\w-]+(\.[\w-]*)?|(?<=://)([^/\s:@]*:)[^/\s@]+(?=@)")


def configure(*, level: str = "INFO", **fields: str) -> None:
    """Send all logs, the libraries' too, to standard error: for people on a terminal, else JSON.

    `fields`, such as the service and the instance, stand in every line of this process.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _redact,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    renderer = _console() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=level, force=True)
    for library in _CHATTY:
        logging.getLogger(library).setLevel(logging.WARNING)
    structlog.contextvars.bind_contextvars(**fields)


@contextlib.contextmanager
def bound(**fields: object) -> Iterator[None]:
    """Put the fields, such as a request id, into every line logged inside the block."""
    with structlog.contextvars.bound_contextvars(**fields):
        yield


def _console() -> Processor:
    # Plain tracebacks: the pretty ones print local variables, and those may be secret.
    return structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)


def _redact(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    for name, value in event.items():
        if isinstance(value, bytes):
            event[name] = ulid_text(value) if len(value) == ID_BYTES else f"({len(value)} bytes)"
        elif isinstance(value, str):
            event[name] = _SECRET_TEXT.sub(_HIDDEN, value)
        if _SECRET_NAMES.search(name):
            event[name] = _HIDDEN
    return event
