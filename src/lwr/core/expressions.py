"""Regular expressions that come from outside and run here. Pure.

A few characters of a regular expression can keep Python's own engine busy for years, without letting any other thread
of the process run. These are matched by `regex`, which understands the same language, lets other threads run and gives
up after a time. What remains: a pattern that stays below that time for each of very many names keeps one thread busy.
"""

from __future__ import annotations

import regex

from lwr.errors import BadRequest

MAX_EXPRESSION_CHARACTERS = 4000
#: For one expression against one name. Thousands of times what a sensible one needs.
MATCH_TIMEOUT_S = 1.0


class Expression:
    """A checked regular expression in Python's language.

    Raises:
        BadRequest: longer than `MAX_EXPRESSION_CHARACTERS`, or no regular expression.
    """

    def __init__(self, text: str) -> None:
        if len(text) > MAX_EXPRESSION_CHARACTERS:
            raise BadRequest(
                f"The regular expression {text[:80]!r}... is longer than {MAX_EXPRESSION_CHARACTERS} characters."
            )
        try:
            self._compiled: regex.Pattern[str] = regex.compile(text)
        except (regex.error, ValueError, OverflowError, RecursionError) as error:
            raise BadRequest(f"{text[:80]!r} is no regular expression: {error}.") from error

    def takes(self, text: str) -> bool:
        """Whether the text begins with a match.

        Raises:
            BadRequest: it could not be told in time.
        """
        try:
            return self._compiled.match(text, timeout=MATCH_TIMEOUT_S, concurrent=True) is not None
        except TimeoutError as error:
            raise BadRequest(
                f"The regular expression {self._compiled.pattern[:80]!r} needs too long to be compared with "
                f"{text[:80]!r}.",
                "Write it without repeats inside of repeats.",
            ) from error
