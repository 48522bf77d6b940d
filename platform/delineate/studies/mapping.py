"""Who is on images that do not say so: a ``subjects.csv`` that comes with them. Values only.

Two columns, ``file`` and ``subject``, and a line for each file, folder (``anna/``) or pattern
(``*`` and ``?`` within a name, ``**`` for folders) as seen from where the CSV lies; a zip counts as
what is in it. A file's own line goes before folders and patterns, which must agree on it.

Names are in memory only, while an upload is read: what is told of a line is its row.
"""

from __future__ import annotations

import csv
import fnmatch
import io
import re
import unicodedata
from dataclasses import dataclass
from typing import Final, NamedTuple

from delineate.studies.archive import MAX_FILES, Refused

NAME: Final = "subjects.csv"
MAX_BYTES: Final = 16 * 1024**2
MAX_LINES: Final = MAX_FILES
# Each is held against each file.
MAX_PATTERNS: Final = 1000
ROWS_TOLD: Final = 20
_WILD: Final = re.compile(r"[*?]")
_ANY_FOLDERS: Final = "**"


class Verdict(NamedTuple):
    """What becomes of a mapping itself, for the upload's report."""

    fate: str
    code: str
    message: str


@dataclass(frozen=True, repr=False)
class _Line:
    row: int  # as a spreadsheet counts: the header is 1
    subject: str


@dataclass(frozen=True, repr=False)
class _Pattern:
    line: _Line
    parts: tuple[re.Pattern[str] | None, ...]  # None: any number of folders


def is_mapping(name: str) -> bool:
    """Whether a file of this name says who is on the others."""
    return name.rpartition("/")[2].lower() == NAME


class Mapping:
    """One ``subjects.csv``."""

    def __init__(self, data: bytes, *, name: str) -> None:
        """Raises Refused ``mapping_unreadable``."""
        self._folder = _normal(name).rpartition("/")[0]
        self._files: dict[str, list[_Line]] = {}
        self._folders: dict[str, list[_Line]] = {}
        self._patterns: list[_Pattern] = []
        self._rows: list[int] = []
        self._malformed: list[int] = []
        self._matching: set[int] = set()  # rows
        self._matched = 0  # files
        for row, file, subject in _lines(data):
            self._rows.append(row)
            if not self._take(_Line(row, subject.strip()), _normal(file.strip())):
                self._malformed.append(row)

    def subject_of(self, name: str) -> str | None:
        """Who is on a file, None when no line says; raises Refused ``mapping_conflict``."""
        path = self._from_here(_normal(name))
        if path is None:
            return None
        own = self._files.get(path, [])
        others = [*self._of_folders(path), *self._of_patterns(path)]
        self._matching.update(line.row for line in (*own, *others))
        deciding = own or others
        if not deciding:
            return None
        self._matched += 1
        if len({line.subject for line in deciding}) > 1:
            rows = _in_words(sorted(line.row for line in deciding))
            raise Refused(
                "mapping_conflict", f"{NAME} names different subjects for the file, in {rows}."
            )
        return deciding[0].subject

    def verdict(self) -> Verdict:
        """What is told of it once every file has been asked about."""
        files = "1 file" if self._matched == 1 else f"{self._matched} files"
        matched = f"{NAME} says who is on {files}."
        unmatched = sorted(set(self._rows) - set(self._malformed) - self._matching)
        malformed = f"Not understood: {_in_words(self._malformed)}."
        idle = f"Of no file in the upload: {_in_words(unmatched)}."
        if self._malformed:
            told = [matched, malformed, *([idle] if unmatched else [])]
            return Verdict("refused", "mapping_malformed", " ".join(told))
        if unmatched:
            return Verdict("skipped", "mapping_unmatched", f"{matched} {idle}")
        return Verdict("skipped", "mapping", matched)

    def _take(self, line: _Line, path: str) -> bool:
        """Keep a line; False when it cannot be meant."""
        if not path or not line.subject or path.startswith("/") or ".." in path.split("/"):
            return False
        if not _WILD.search(path):
            kept = self._folders if path.endswith("/") else self._files
            kept.setdefault(path.rstrip("/"), []).append(line)
            return True
        if len(self._patterns) == MAX_PATTERNS:
            return False
        parts = (path + _ANY_FOLDERS if path.endswith("/") else path).split("/")
        self._patterns.append(_Pattern(line, tuple(_compiled(part) for part in parts)))
        return True

    def _from_here(self, path: str) -> str | None:
        """A file's path from the mapping's own folder; None when it lies elsewhere."""
        if not path or not self._folder:
            return path or None
        inside = path.startswith(f"{self._folder}/")
        return path[len(self._folder) + 1 :] if inside else None

    def _of_folders(self, path: str) -> list[_Line]:
        found: list[_Line] = []
        folder, slash, _ = path.rpartition("/")
        while slash:
            found += self._folders.get(folder, [])
            folder, slash, _ = folder.rpartition("/")
        return found

    def _of_patterns(self, path: str) -> list[_Line]:
        parts = path.split("/")
        return [each.line for each in self._patterns if _matches(each.parts, parts)]


def _lines(data: bytes) -> list[tuple[int, str, str]]:
    """(row, file, subject) of every line that is not empty; raises Refused."""
    if len(data) > MAX_BYTES:
        raise _unreadable(f"It is larger than {MAX_BYTES // 1024**2} MiB.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _unreadable("Save it as UTF-8.") from None  # the cause holds what is in it
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        rows = [(row, cells) for row, cells in enumerate(reader, start=1) if any(cells)]
    except csv.Error:
        raise _unreadable("Its quotes are not in order.") from None
    columns = [cell.strip().lower() for cell in rows[0][1]] if rows else []
    if "file" not in columns or "subject" not in columns:
        raise _unreadable("Its first line must name the columns file and subject.")
    if len(rows) > MAX_LINES + 1:
        raise _unreadable(f"It has more than {MAX_LINES} lines.")
    file, subject = columns.index("file"), columns.index("subject")
    return [(row, _cell(cells, file), _cell(cells, subject)) for row, cells in rows[1:]]


def _cell(cells: list[str], column: int) -> str:
    return cells[column] if column < len(cells) else ""


def _unreadable(why: str) -> Refused:
    return Refused("mapping_unreadable", f"{NAME} cannot be used. {why}")


def _normal(path: str) -> str:
    """As names are compared: a Mac writes an umlaut in two characters, Windows backslashes."""
    return unicodedata.normalize("NFC", path.replace("\\", "/")).removeprefix("./")


def _compiled(part: str) -> re.Pattern[str] | None:
    # Brackets are a part of names: they mean nothing here.
    literal = part.replace("[", "[[]")
    return None if part == _ANY_FOLDERS else re.compile(fnmatch.translate(literal))


def _matches(pattern: tuple[re.Pattern[str] | None, ...], parts: list[str]) -> bool:
    """Without going back, so that no pattern takes long."""
    reached = {0}  # how many parts may be behind us
    for each in pattern:
        if not reached:
            return False
        if each is None:
            reached = set(range(min(reached), len(parts) + 1))
        else:
            reached = {n + 1 for n in reached if n < len(parts) and each.match(parts[n])}
    return len(parts) in reached


def _in_words(rows: list[int]) -> str:
    shown = ", ".join(map(str, rows[:ROWS_TOLD]))
    more = f" and {len(rows) - ROWS_TOLD} more" if len(rows) > ROWS_TOLD else ""
    return f"{'row' if len(rows) == 1 else 'rows'} {shown}{more}"
