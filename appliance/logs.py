"""Log format of every process: one record is one line, and words of strangers cannot break it."""

from __future__ import annotations

import logging
import sys
import traceback
from types import TracebackType
from typing import Any, TextIO

from appliance.words import one_line, several_lines

_FRAME = '  File "'
"""Beginning of an entry of a traceback; between the entries stand the exceptions' own words."""


class Formatter(logging.Formatter):
    """Formatter of every handler: the message is one line, and so are an exception's words in a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as text."""
        record.exc_text = None  # another handler may have left its own traceback there
        return super().format(record)

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the message as one line."""
        record.message = one_line(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:
        """Return the traceback."""
        return "\n".join(_traceback_lines(*ei))


class HarmlessStream:
    """Standard error of a service: libraries that print there by themselves, as gevent prints tracebacks, end here too."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text; its line breaks stay."""
        self._stream.write(several_lines(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Handler(logging.Handler):
    """Handler that writes to what standard error is at the moment, as logging's own last resort does."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.setFormatter(Formatter())

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(f"{self.format(record)}\n")
            sys.stderr.flush()
        except Exception:
            self.handleError(record)


def install(*, service: bool = False) -> None:
    """Have this process write harmless words alone to standard error, when it logs and when it dies.

    A second time changes nothing.

    :param service: whether nothing else than log lines is written there; a command may draw a bar.
    """
    root = logging.getLogger()
    if not any(isinstance(handler, _Handler) for handler in root.handlers):
        root.addHandler(_Handler())
    # It logs a traceback, with the peer's words, of a head that it cannot read; whoever asked says what failed and counts it.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    sys.excepthook = _print_exception
    if service and not isinstance(sys.stderr, HarmlessStream):
        sys.stderr = HarmlessStream(sys.stderr)


def _print_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    print("\n".join(_traceback_lines(kind, error, trace)), file=sys.stderr)


def _traceback_lines(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> list[str]:
    parts = [part.strip("\n") for part in traceback.format_exception(kind, error, trace)]
    return [several_lines(part) if part.startswith(_FRAME) else one_line(part) for part in parts]
