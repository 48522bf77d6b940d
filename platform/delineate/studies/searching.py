"""Rows that a search finds: first which, in order, then what is told of them.

Attributes that have a column are matched there; every other where it was kept, in the instances'
headers (of several values the first). No header is loaded whole but for who asks for all of it.
Of series and instances come those of images first, then the references.

A row is a dictionary by tag: a column's value, or an element of DICOM JSON from a header.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from operator import or_
from typing import Any, Final, TypeVar

from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import (
    Count,
    Exists,
    Expression,
    F,
    Field,
    Func,
    IntegerField,
    JSONField,
    Model,
    OuterRef,
    Q,
    QuerySet,
    Subquery,
    TextField,
    Value,
)

from delineate.studies.matching import Between, Like, Match, Numbers, OneOf, Search
from delineate.studies.models import Instance, Reference, Series, Study
from delineate.studies.selectors import (
    Shown,
    instances_in,
    references_in,
    series_in,
    studies_in,
)

RowT = TypeVar("RowT", Instance, Reference)

MODALITIES_IN_STUDY: Final = "00080061"
SERIES_OF_STUDY: Final = "00201206"
INSTANCES_OF_STUDY: Final = "00201208"
INSTANCES_OF_SERIES: Final = "00201209"

# Attributes that have a column, by their tags.
_OF_STUDIES: Final = {
    "0020000D": "study_uid",
    "00100010": "subject__pseudonym",
    "00100020": "subject__pseudonym",
    "00200010": "number",
}
_OF_SERIES: Final = {"00080060": "modality", "0020000E": "series_uid", "00200011": "number"}
_OF_INSTANCES: Final = {
    "00080016": "sop_class_uid",
    "00080018": "sop_instance_uid",
    "00280008": "number_of_frames",
    "00280010": "series__rows",
    "00280011": "series__columns",
}
# The same of references, which are a series' rows and instances' in one.
_SERIES_OF_REFERENCES: Final = {**_OF_SERIES, "00200011": "series_number"}
_OF_REFERENCES: Final = {"00080016": "sop_class_uid", "00080018": "sop_instance_uid"}
# Attributes of a whole study or series that stand in each of its headers, if they were kept: date,
# time, accession number, referring physician, description, birth date, sex, age; and date, time,
# manufacturer, description, protocol, body part, position, frame of reference, laterality.
_IN_STUDIES_HEADERS: Final = frozenset(
    ["00080020", "00080030", "00080050", "00080090", "00081030", "00100030", "00100040", "00101010"]
)
_IN_SERIES_HEADERS: Final = frozenset(
    [
        "00080021",
        "00080031",
        "00080070",
        "0008103E",
        "00181030",
        "00180015",
        "00185100",
        "00200052",
        "00200060",
    ]
)
_IN_INSTANCES_HEADERS: Final = frozenset({"00200013", "00280100"})  # number, bits allocated
_COLUMNS: Final = _OF_STUDIES.keys() | _OF_SERIES.keys() | _OF_INSTANCES.keys()
_HEADERS_OF_REFERENCES: Final = _OF_INSTANCES.keys() - _OF_REFERENCES.keys()
_ELEMENTS: Final = "elements"  # several of a header, by tag
_MOST_INTEGER: Final = 2**31 - 1
_BESIDE: Final = "beside_"  # what references add to what is told of a study
_ORDER_OF_REFERENCES: Final = ("series_number", "series_uid", "sop_instance_uid")
# In one study some devices give an image UID to an image of every series.
_SERIES: Final = Count("series_uid", distinct=True)
_INSTANCES: Final = Count(
    Func("series__series_uid", "sop_instance_uid", function="ROW", output_field=TextField()),
    distinct=True,
)


@dataclass(frozen=True)
class Found:
    """A page of what a search finds, and how much there is after it."""

    rows: list[dict[str, Any]]
    remaining: int


def studies_found(shown: Shown, search: Search) -> Found:
    """Studies by their numbers."""
    asked = _Asked(shown, search)
    series = series_in(shown).filter(study=OuterRef("pk"))
    instances = instances_in(shown).filter(series__study=OuterRef("pk"))
    references = references_in(shown).filter(study=OuterRef("pk"))
    rows = studies_in(shown).filter(asked.of_study(""), asked.of_modalities(OuterRef("pk")))
    if asked.names_series:
        of_references = references.filter(asked.of_series_of_references())
        rows = rows.filter(Exists(series.filter(asked.of_series(""))) | Exists(of_references))
    if asked.names_instances:
        rows = rows.filter(
            Exists(asked.instances(instances)) | Exists(asked.references(references))
        )
    told: dict[str, Any] = {
        **_columns(_OF_STUDIES),
        MODALITIES_IN_STUDY: _modalities(series),
        SERIES_OF_STUDY: _counted(series, "study", _SERIES),
        INSTANCES_OF_STUDY: _counted(instances, "series__study", _INSTANCES),
        _ELEMENTS: _of_one_header(instances, _IN_STUDIES_HEADERS),
        _BESIDE + MODALITIES_IN_STUDY: _modalities(references),
        _BESIDE + SERIES_OF_STUDY: _counted(references, "study", _SERIES),
        _BESIDE + INSTANCES_OF_STUDY: _counted(references, "study", Count("pk")),
        _BESIDE + _ELEMENTS: _of_one_header(references, _IN_STUDIES_HEADERS),
    }
    found = _page(Study, rows.order_by("number"), search, told)
    return replace(found, rows=[_together(row) for row in found.rows])


def series_found(shown: Shown, search: Search, *, study_uid: str | None) -> Found:
    """DICOM series of the project or of a study, each once however many volumes it is."""
    asked = _Asked(shown, search)
    earlier = series_in(shown).filter(
        study=OuterRef("study"), series_uid=OuterRef("series_uid"), volume__lt=OuterRef("volume")
    )
    instances = instances_in(shown).filter(
        series__study=OuterRef("study"), series__series_uid=OuterRef("series_uid")
    )
    rows = series_in(shown).filter(
        ~Exists(earlier),
        asked.of_study("study__"),
        asked.of_series(""),
        asked.of_modalities(OuterRef("study")),
    )
    if study_uid is not None:
        rows = rows.filter(study__study_uid=study_uid)
    if asked.names_instances:
        rows = rows.filter(Exists(asked.instances(instances)))
    told: dict[str, Any] = {
        **_columns(_OF_STUDIES, "study__"),
        **_columns(_OF_SERIES),
        INSTANCES_OF_SERIES: _counted(
            instances, "series__study", Count("sop_instance_uid", distinct=True)
        ),
        _ELEMENTS: _of_one_header(instances, _IN_STUDIES_HEADERS | _IN_SERIES_HEADERS),
    }
    rows = rows.order_by("study__number", "number", "series_uid")
    return _then(
        _page(Series, rows, search, told),
        rows,
        search,
        lambda rest: _series_of_references(asked, rest, study_uid=study_uid),
    )


def instances_found(
    shown: Shown, search: Search, *, study_uid: str | None, series_uid: str | None
) -> Found:
    """Instances of the project, a study or a series, each once however many volumes it is in."""
    asked = _Asked(shown, search)
    twin = instances_in(shown).filter(
        sop_instance_uid=OuterRef("sop_instance_uid"),
        series__study=OuterRef("series__study"),
        series__series_uid=OuterRef("series__series_uid"),
        series__volume__lt=OuterRef("series__volume"),
    )
    rows = asked.instances(
        instances_in(shown, study_uid=study_uid, series_uid=series_uid).filter(
            ~Exists(twin),
            asked.of_study("series__study__"),
            asked.of_series("series__"),
            asked.of_modalities(OuterRef("series__study")),
        )
    )
    told: dict[str, Any] = {
        **_columns(_OF_STUDIES, "series__study__"),
        **_columns(_OF_SERIES, "series__"),
        **_columns(_OF_INSTANCES),
        **{tag: _element(tag) for tag in (_IN_INSTANCES_HEADERS | search.fields) - _COLUMNS},
    }
    if search.wants_all:
        told[_ELEMENTS] = F("header")
    order = ("series__study__number", "series__number", "series__series_uid", "sop_instance_uid")
    rows = rows.order_by(*order)
    return _then(
        _page(Instance, rows, search, told),
        rows,
        search,
        lambda rest: _references(asked, rest, study_uid=study_uid, series_uid=series_uid),
    )


def _series_of_references(asked: _Asked, search: Search, *, study_uid: str | None) -> Found:
    """Series of references, each once however many there are in it."""
    references = references_in(asked.shown)
    of_series = references.filter(study=OuterRef("study"), series_uid=OuterRef("series_uid"))
    earlier = of_series.filter(sop_instance_uid__lt=OuterRef("sop_instance_uid"))
    rows = references_in(asked.shown, study_uid=study_uid).filter(
        ~Exists(earlier),
        asked.of_study("study__"),
        asked.of_series_of_references(),
        asked.of_modalities(OuterRef("study")),
    )
    if asked.names_instances:
        rows = rows.filter(Exists(asked.references(of_series)))
    told: dict[str, Any] = {
        **_columns(_OF_STUDIES, "study__"),
        **_columns(_SERIES_OF_REFERENCES),
        INSTANCES_OF_SERIES: _counted(of_series, "study", Count("pk")),
        _ELEMENTS: _of_one_header(of_series, _IN_STUDIES_HEADERS | _IN_SERIES_HEADERS),
    }
    return _page(Reference, rows.order_by("study__number", *_ORDER_OF_REFERENCES), search, told)


def _references(
    asked: _Asked, search: Search, *, study_uid: str | None, series_uid: str | None
) -> Found:
    rows = asked.references(
        references_in(asked.shown, study_uid=study_uid, series_uid=series_uid).filter(
            asked.of_study("study__"),
            asked.of_series_of_references(),
            asked.of_modalities(OuterRef("study")),
        )
    )
    in_headers = _IN_INSTANCES_HEADERS | _HEADERS_OF_REFERENCES | (search.fields - _COLUMNS)
    told: dict[str, Any] = {
        **_columns(_OF_STUDIES, "study__"),
        **_columns(_SERIES_OF_REFERENCES),
        **_columns(_OF_REFERENCES),
        **{tag: _element(tag) for tag in in_headers},
    }
    if search.wants_all:
        told[_ELEMENTS] = F("header")
    return _page(Reference, rows.order_by("study__number", *_ORDER_OF_REFERENCES), search, told)


class _Asked:
    """What a search asks of rows, by the level at which it is kept."""

    def __init__(self, shown: Shown, search: Search) -> None:
        self.shown = shown
        self._matches = search.matches
        self.names_series = bool(search.matches.keys() & _OF_SERIES.keys())
        self._in_headers = {
            tag: match
            for tag, match in search.matches.items()
            if tag not in _COLUMNS and tag != MODALITIES_IN_STUDY
        }
        self.names_instances = bool(self._in_headers or search.matches.keys() & _OF_INSTANCES)

    def of_study(self, prefix: str) -> Q:
        return self._of_columns(_OF_STUDIES, prefix)

    def of_series(self, prefix: str) -> Q:
        return self._of_columns(_OF_SERIES, prefix)

    def of_modalities(self, study: OuterRef) -> Q:
        """Whether a study has a series of one of the modalities."""
        match = self._matches.get(MODALITIES_IN_STUDY)
        if match is None:
            return Q()
        matches = _of_column("modality", match) & Q(study=study)
        return Q(
            Exists(series_in(self.shown).filter(matches))
            | Exists(references_in(self.shown).filter(matches))
        )

    def of_series_of_references(self) -> Q:
        return self._of_columns(_SERIES_OF_REFERENCES, "")

    def references(self, references: QuerySet[Reference]) -> QuerySet[Reference]:
        """Those that are as they should be themselves; less of them has a column."""
        references = references.filter(self._of_columns(_OF_REFERENCES, ""))
        for tag, match in self._matches.items():
            if tag in self._in_headers or tag in _HEADERS_OF_REFERENCES:
                references = _of_header(references, tag, match)
        return references

    def instances(self, instances: QuerySet[Instance]) -> QuerySet[Instance]:
        """Those that are as they should be themselves."""
        instances = instances.filter(self._of_columns(_OF_INSTANCES, ""))
        for tag, match in self._in_headers.items():
            instances = _of_header(instances, tag, match)
        return instances

    def _of_columns(self, columns: Mapping[str, str], prefix: str) -> Q:
        asked = Q()
        for tag in self._matches.keys() & columns.keys():
            asked &= _of_column(prefix + columns[tag], self._matches[tag])
        return asked


def _of_column(path: str, match: Match) -> Q:
    match match:
        case OneOf(values) if path.endswith("number"):  # StudyID: a text, of ours a number
            return Q(**{f"{path}__in": _integers(float(v) for v in values if v.isdecimal())})
        case OneOf(values):
            return Q(**{f"{path}__in": values})
        case Numbers(values):
            return Q(**{f"{path}__in": _integers(values)})
        case Like(patterns):
            return reduce(or_, (Q(**{f"{path}__regex": each}) for each in patterns))
        case Between():
            raise AssertionError("no date or time has a column")


def _of_header(instances: QuerySet[RowT], tag: str, match: Match) -> QuerySet[RowT]:
    """Those whose first value of an attribute matches."""
    name = f"of_{tag}"
    if isinstance(match, Numbers):
        value = _in_header(tag, "Value", "0", function="jsonb_extract_path", of=JSONField())
        asked = [Q(**{name: number}) for number in match.values]
    else:
        value = _in_header(tag, "Value", "0", function="jsonb_extract_path_text", of=TextField())
        asked = [_of_text(name, match)]
    return instances.alias(**{name: value}).filter(reduce(or_, asked))


def _of_text(name: str, match: OneOf | Like | Between) -> Q:
    match match:
        case OneOf(values):
            return Q(**{f"{name}__in": values})
        case Like(patterns):
            return reduce(or_, (Q(**{f"{name}__regex": each}) for each in patterns))
        case Between(low, high):
            # What is given to the day or minute includes all that is told more exactly.
            from_low = Q(**{f"{name}__gte": low}) if low else Q()
            return from_low & (Q(**{f"{name}__lte": f"{high}99999999"}) if high else Q())


def _integers(values: Iterable[float]) -> list[int]:
    return [int(value) for value in values if value.is_integer() and abs(value) <= _MOST_INTEGER]


def _columns(columns: Mapping[str, str], prefix: str = "") -> dict[str, Expression | F]:
    return {tag: F(prefix + path) for tag, path in columns.items()}


def _counted(rows: QuerySet[Any], group: str, count: Count) -> Subquery:
    return Subquery(
        rows.order_by().values(group).annotate(counted=count).values("counted"),
        output_field=IntegerField(),
    )


def _element(tag: str) -> Func:
    return _in_header(tag, function="jsonb_extract_path", of=JSONField())


def _of_one_header(instances: QuerySet[Any], tags: frozenset[str]) -> Subquery:
    """Elements of some instance's header: what is said here is equal in all of them."""
    pairs = [part for tag in sorted(tags) for part in (Value(tag, TextField()), _element(tag))]
    elements = Func(*pairs, function="jsonb_build_object", output_field=JSONField())
    return Subquery(instances.order_by().values(told=elements)[:1])


def _in_header(*path: str, function: str, of: Field[Any, Any]) -> Func:
    # Not as Django writes paths: to it a tag of digits is a place in a list.
    steps = [Value(step, TextField()) for step in path]
    return Func(F("header"), *steps, function=function, output_field=of)


def _modalities(rows: QuerySet[Any]) -> ArraySubquery:
    return ArraySubquery(rows.order_by("modality").values("modality").distinct())


def _together(row: dict[str, Any]) -> dict[str, Any]:
    """A study's row, what is told of its references in one with what is told of its images."""
    beside = {tag: row.pop(_BESIDE + tag) for tag in (SERIES_OF_STUDY, INSTANCES_OF_STUDY)}
    row |= {tag: (row[tag] or 0) + (count or 0) for tag, count in beside.items()}
    modalities = {*row[MODALITIES_IN_STUDY], *row.pop(_BESIDE + MODALITIES_IN_STUDY)}
    row[MODALITIES_IN_STUDY] = sorted(modalities)
    return {**(row.pop(_BESIDE + _ELEMENTS) or {}), **row}


def _then(
    found: Found, rows: QuerySet[Any], search: Search, rest: Callable[[Search], Found]
) -> Found:
    """A page of rows, and where it is not full by them, of what comes after all of them."""
    if found.remaining:
        after = rest(replace(search, offset=0, limit=0))
        return replace(found, remaining=found.remaining + after.remaining)
    before = search.offset + len(found.rows) if found.rows else rows.count()
    after = rest(
        replace(
            search,
            offset=max(0, search.offset - before),
            limit=search.limit - len(found.rows),
        )
    )
    return Found([*found.rows, *after.rows], after.remaining)


def _page(
    model: type[Model],
    rows: QuerySet[Any],
    search: Search,
    told: Mapping[str, Any],
) -> Found:
    """First which rows, then what is told of these: sorting must not carry headers along."""
    end = search.offset + search.limit
    ids = list(rows.values_list("pk", flat=True)[search.offset : end + 1])
    remaining = rows.count() - end if len(ids) > search.limit else 0
    page: QuerySet[Any, dict[str, Any]] = model._default_manager.filter(
        pk__in=ids[: search.limit]
    ).values("pk", **told)
    found = {row.pop("pk"): {**(row.pop(_ELEMENTS, None) or {}), **row} for row in page}
    return Found([found[each] for each in ids[: search.limit] if each in found], remaining)
