"""The log: one line per event, for people or for programs, without secrets and without forged lines.

Knows how a line looks and where it goes; what is logged is said where it happens. In the console form a traceback
follows its event in lines that begin with `    | `, which no text in an event can.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TextIO
from urllib.parse import quote, quote_plus

import structlog
from structlog.typing import EventDict, Processor

from lwr.errors import ConfigError

HIDDEN = "******"
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_COLOURS = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "31"}
_MAX_VALUE_CHARS = 16_000
#: A shorter one would be found in innocent words; the names and forms below hide it all the same.
_MIN_SECRET_CHARS = 6

_HIDDEN_NAMES = "private_key|private_token|job_key"
_SECRET_NAME = re.compile(rf"({_HIDDEN_NAMES}|authorization)", re.IGNORECASE)
_IN_TEXT = (
    (re.compile(rf"""\b({_HIDDEN_NAMES})(["']?\s*[=:]\s*["']?)[^&\s"']+""", re.IGNORECASE), rf"\1\2{HIDDEN}"),
    (re.compile(r"\b(bearer)(\s+)[^\s\"',;]+", re.IGNORECASE), rf"\1\2{HIDDEN}"),
    (re.compile(r"(://)[^/\s@]+@"), rf"\1{HIDDEN}@"),
)


def configure(
    form: str, level: str, file: str = "", *, secrets: Iterable[str] = (), stream: TextIO | None = None
) -> Output:
    """Set the log up for this process, also for the standard `logging` that libraries use. May be called again.

    Returns what is to be closed when nothing will be logged any more.

    Args:
        form: `console` or `json`.
        level: the least important level that is written.
        file: to append to; empty for `stream`.
        secrets: texts to be hidden wherever they appear.
        stream: instead of a file; the standard error stream if not given.

    Raises:
        ConfigError: the file cannot be opened.
    """
    output = Output(_open(file), owned=True) if file else Output(stream or sys.stderr, owned=False)
    renderer: Processor = (
        structlog.processors.JSONRenderer(default=str) if form == "json" else Console(output.is_terminal)
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            Redact(secrets),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=lambda *_: output,
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers = [_FromLibraries()]
    root.setLevel(_LEVELS[level])
    logging.getLogger("urllib3").setLevel(logging.WARNING)  # its finer lines are whole URLs
    return output


class Redact:
    """A processor that hides secrets and makes every value plain: text, number, truth, None, or lists of them."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms = {
            form
            for secret in secrets
            if len(secret) >= _MIN_SECRET_CHARS
            for form in (secret, quote(secret, safe=""), quote_plus(secret))
        }
        self._secret = re.compile("|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True)) or r"(?!)")

    def __call__(self, logger: object, method: str, event: EventDict) -> EventDict:
        return {name: HIDDEN if _SECRET_NAME.fullmatch(name) else self._plain(value) for name, value in event.items()}

    def _plain(self, value: object) -> object:
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, list | tuple | set | frozenset):
            return [self._plain(item) for item in value]
        if isinstance(value, Mapping):
            return {
                str(name): HIDDEN if _SECRET_NAME.fullmatch(str(name)) else self._plain(item)
                for name, item in value.items()
            }
        return self.text(str(value))

    def text(self, text: str) -> str:
        """`text` without secrets, cut to a length that a log can bear."""
        text = self._secret.sub(HIDDEN, text)
        for pattern, replacement in _IN_TEXT:
            text = pattern.sub(replacement, text)
        return text if len(text) <= _MAX_VALUE_CHARS else f"{text[:_MAX_VALUE_CHARS]}...({len(text)} characters)"


class Console:
    """A renderer for people: `2026-11-22T14:31:03.123456Z info     job submitted  job=17 manager=_default_`."""

    def __init__(self, colours: bool) -> None:
        self._colours = colours

    def __call__(self, logger: object, method: str, event: EventDict) -> str:
        at, level, what = event.pop("timestamp", ""), str(event.pop("level", method)), str(event.pop("event", ""))
        trace = str(event.pop("exception", ""))
        shown = f"{level:<8}"
        if self._colours:
            shown = f"\x1b[{_COLOURS.get(level, '0')}m{shown}\x1b[0m"
        facts = "".join(f" {printable(name)}={_value(value)}" for name, value in event.items())
        line = f"{at} {shown} {printable(what)}{' ' if facts else ''}{facts}"
        return "\n    | ".join([line, *(printable(row) for row in trace.splitlines())])


def printable(text: str) -> str:
    """`text` with everything escaped that could end a line or steer a terminal."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode("ascii") for sign in text)


def _value(value: object) -> str:
    text = printable(str(value))
    return repr(text) if not text or " " in text else text


class Output:
    """Where lines go. A full disk or a closed terminal loses lines and never the work that they tell of.

    `owned` says that `close` closes the stream; after it lines are lost too. It may be called twice.
    """

    def __init__(self, stream: TextIO, *, owned: bool) -> None:
        self._stream = stream
        self._owned = owned
        self._lock = threading.Lock()
        self.is_terminal = stream.isatty()

    def write(self, line: str) -> None:
        with self._lock, contextlib.suppress(OSError, ValueError):
            self._stream.write(line + "\n")
            self._stream.flush()

    def close(self) -> None:
        if self._owned:
            with contextlib.suppress(OSError):
                self._stream.close()

    debug = info = warning = error = critical = write


class _FromLibraries(logging.Handler):
    """What libraries say through `logging`, as events of ours."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger("lwr")
        log.log(record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info)


def _open(file: str) -> TextIO:
    try:
        return Path(file).open("a", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise ConfigError(
            f"The log file {file} cannot be opened: {error.strerror}.", "Set log_file to another."
        ) from error
