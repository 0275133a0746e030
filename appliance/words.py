"""Words of strangers on their way to a terminal, a log, a plan or Ansible: escaped, one line.

A medium, a peer, a client or a user chooses file names, labels, annotations, headers and user names. Some characters of
theirs act instead of being shown: they move the cursor, begin a line of a log, turn the direction of writing, or are not
seen at all. They are shown as escapes of Python. Data that programs read, such as the audit log, is kept as it came.

The collection has its own copy, because the Ansible of a controller has no package ``appliance`` to import. A test holds
the two against each other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

LONGEST = 8192
"""Characters of one field that are shown; twice what ``medium.yaml`` may have, and less than a line of the journal."""

_ACTING = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # controls of terminals (ECMA-48)
    "\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069"  # direction of writing (UAX #9)
    "\u2028\u2029"  # separators of lines and paragraphs
    "\ud800-\udfff"  # halves of a pair; UTF-8 cannot write them
    # the rest of the category Cf of Unicode 17: characters of no width, marks that are not seen, tags
    "\u00ad\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200d\u2060-\u2065\u206a-\u206f\ufeff\ufff0-\ufffb"
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
    # letters and marks that are drawn as nothing (Default_Ignorable_Code_Point)
    "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\uffa0\ufe00-\ufe0f"
    "]"
)

_ENDING = re.compile(r'(?<!\\)(\\*)("|\Z)')


def one_line(text: object, most: int = LONGEST) -> str:
    """Return a text as one line on which every character is seen as itself or as an escape.

    What was returned is returned as it is, so it may pass here again.

    :param most: characters at most; the end says how many are left out.
    """
    shown = _escaped(str(text))
    if len(shown) <= most:
        return shown
    ending = f"... ({len(shown)} characters)"
    return shown[: most - len(ending)] + ending


def quoted(text: object, most: int = LONGEST) -> str:
    """Return a text as one line in quotes that nothing in it ends, so that it cannot pass for the words around it.

    :param most: characters at most between the quotes, before they are escaped.
    """
    # Backslashes count before a quote only: elsewhere they begin the escapes that one_line made.
    return '"' + _ENDING.sub(_escaped_quote, one_line(text, most)) + '"'


def several_lines(text: str) -> str:
    """Return a text that the program itself broke into lines, with everything else that acts as escapes."""
    return "\n".join(map(_escaped, text.split("\n")))


def each(value: Any) -> Any:
    """Return plain data with :func:`one_line` of every string in it, keys included.

    A text that is made of it has no line breaks but those of the program that makes it.
    """
    if isinstance(value, str):
        return one_line(value)
    if isinstance(value, Mapping):
        return {each(key): each(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [each(item) for item in value]
    return value


def json_text(value: Any, indent: int | None = None) -> str:
    """Return exact data as JSON that a terminal can be shown: in ASCII, with every control as an escape of JSON."""
    # RFC 8259 lets DEL stand as itself, and json does so.
    return json.dumps(value, indent=indent, ensure_ascii=True).replace("\x7f", "\\u007f")


def _escaped_quote(found: re.Match[str]) -> str:
    return found[1] * 2 + ('\\"' if found[2] else "")


def _escaped(text: str) -> str:
    # Most texts have nothing to escape, and this is one look at them.
    if text.isascii() and text.isprintable():
        return text
    return _ACTING.sub(lambda found: found.group().encode("unicode_escape").decode("ascii"), text)
