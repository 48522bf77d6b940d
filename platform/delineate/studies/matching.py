"""What a search asks for (PS3.18 8.3.4 and 10.6, PS3.4 C.2.2.2). Values only.

Attributes are named by keyword or by tag. Of those that are not known here, or lie in sequences,
the standard wants that they are left out of account, and that the client is told so; a value that
cannot be read is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword

from delineate.errors import Invalid

MAX_RESULTS: Final = 1000
MAX_PATTERN_CHARACTERS: Final = 1024

_TAG: Final = re.compile(r"[0-9A-Fa-f]{8}")
_WHOLE: Final = re.compile(r"[0-9]{1,9}")
_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,16}(\.[0-9]{0,16})?([eE][+-]?[0-9]{1,2})?")
_LIST: Final = re.compile(r"[,\\]")
_TEMPORAL: Final = {
    "DA": re.compile(r"\d{8}"),
    "TM": re.compile(r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?"),
    "DT": re.compile(r"\d{4,14}(\.\d{1,6})?"),
}
_NUMBERS: Final = frozenset(["DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV"])
_UNSEARCHED: Final = frozenset(["SQ", "OB", "OD", "OF", "OL", "OV", "OW", "UN", "AT"])


class MalformedSearch(Invalid):
    """A search with a value that cannot be read."""

    status = 400
    code = "malformed"


@dataclass(frozen=True)
class OneOf:
    """One of these values as they stand."""

    values: tuple[str, ...]


@dataclass(frozen=True)
class Numbers:
    """One of these numbers."""

    values: tuple[float, ...]


@dataclass(frozen=True)
class Like:
    """A whole value of one of these patterns, regular expressions of * and ?."""

    patterns: tuple[str, ...]


@dataclass(frozen=True)
class Between:
    """From … to, both included; an empty one is open."""

    low: str
    high: str


Match = OneOf | Numbers | Like | Between


@dataclass(frozen=True)
class Search:
    """Attributes as tags of eight upper-case hexadecimal digits."""

    matches: dict[str, Match]
    fields: frozenset[str]  # wanted beside what every answer has
    wants_all: bool
    limit: int
    offset: int
    ignored: tuple[str, ...]  # parameters that were left out of account
    is_fuzzy: bool  # was asked for, and is not done


def parse(parameters: Iterable[tuple[str, str]]) -> Search:
    """A query string's parameters in their order; raises MalformedSearch."""
    matches: dict[str, Match] = {}
    fields: set[str] = set()
    ignored: list[str] = []
    limit, offset, wants_all, is_fuzzy = MAX_RESULTS, 0, False, False
    for name, value in parameters:
        if "\0" in value:
            raise MalformedSearch(f"{name} holds a character that no text has.")
        match name.lower():
            case "limit":
                limit = min(_whole(name, value), MAX_RESULTS)
            case "offset":
                offset = _whole(name, value)
            case "fuzzymatching":
                is_fuzzy = value.strip().lower() == "true"
            case "includefield":
                for each in value.split(","):
                    if each.strip().lower() == "all":
                        wants_all = True
                    elif (tag := tag_of(each.strip())) is not None:
                        fields.add(tag)
                    elif each.strip():
                        ignored.append(each.strip())
            case "accept" | "charset":
                pass  # of every address
            case _:
                tag = tag_of(name)
                if tag is None or dictionary_VR(int(tag, 16)) in _UNSEARCHED:
                    ignored.append(name)
                elif value.strip(" *"):  # else universal matching: wanted, whatever it is
                    matches[tag] = _match(name, value.strip(), vr=dictionary_VR(int(tag, 16)))
                else:
                    fields.add(tag)
    return Search(matches, frozenset(fields), wants_all, limit, offset, tuple(ignored), is_fuzzy)


def tag_of(name: str) -> str | None:
    """An attribute of the standard's as a tag, by its keyword or its tag."""
    number = int(name, 16) if _TAG.fullmatch(name) else tag_for_keyword(name)
    return f"{number:08X}" if number is not None and keyword_for_tag(number) else None


def _whole(name: str, value: str) -> int:
    if not _WHOLE.fullmatch(value):
        raise MalformedSearch(f"{name} is a whole number.")
    return int(value)


def _match(name: str, value: str, *, vr: str) -> Match:
    if vr == "UI":
        return OneOf(tuple(uid for uid in map(str.strip, _LIST.split(value)) if uid))
    if vr in _TEMPORAL:
        return _between(name, value, form=_TEMPORAL[vr])
    if vr in _NUMBERS:
        if not all(_NUMBER.fullmatch(each.strip()) for each in _LIST.split(value)):
            raise MalformedSearch(f"{name} is a number.")
        return Numbers(tuple(float(each) for each in _LIST.split(value)))
    # A comma may belong to a text; codes have none.
    several = _LIST.split(value) if vr == "CS" else value.split("\\")
    if not re.search(r"[*?]", value):
        return OneOf(tuple(each.strip() for each in several))
    if len(value) > MAX_PATTERN_CHARACTERS:
        raise MalformedSearch(f"{name} is longer than any value that it could match.")
    return Like(tuple(_pattern(each.strip()) for each in several))


def _between(name: str, value: str, *, form: re.Pattern[str]) -> Between:
    low, dash, high = value.partition("-")
    ends = (low.strip(), high.strip() if dash else low.strip())
    if not any(ends) or not all(form.fullmatch(end) for end in ends if end):
        raise MalformedSearch(f"{name} is a date or time, or two with a dash between them.")
    return Between(*ends)


def _pattern(value: str) -> str:
    """* any letters, ? one, everything else itself; whole."""
    letters = {"*": ".*", "?": "."}
    return "^" + "".join(letters.get(letter) or re.escape(letter) for letter in value) + "$"
