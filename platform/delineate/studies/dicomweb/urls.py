"""The addresses of DICOMweb, within a project's."""

from __future__ import annotations

from typing import Final

from django.urls import path, register_converter
from django.urls.converters import StringConverter

from delineate.studies.dicomweb import qido, studies, wado


class UidConverter(StringConverter):
    """What a UID is made of; of what else stands in its place there is nothing."""

    regex = r"[0-9.]{1,64}"


register_converter(UidConverter, "uid")

STUDY: Final = "studies/<uid:study_uid>"
SERIES: Final = f"{STUDY}/series/<uid:series_uid>"
INSTANCE: Final = f"{SERIES}/instances/<uid:sop_uid>"
FRAME: Final = f"{INSTANCE}/frames/<int:number>"

urlpatterns = [
    path("studies", studies.studies),
    path("series", qido.series),
    path("instances", qido.instances),
    path(STUDY, studies.study),
    path(f"{STUDY}/series", qido.series),
    path(f"{STUDY}/instances", qido.instances),
    path(f"{STUDY}/metadata", wado.metadata),
    path(SERIES, wado.retrieve),
    path(f"{SERIES}/instances", qido.instances),
    path(f"{SERIES}/metadata", wado.metadata),
    path(INSTANCE, wado.retrieve),
    path(f"{INSTANCE}/metadata", wado.metadata),
    path(f"{INSTANCE}/bulkdata/7FE00010", wado.bulk_data),
    path(f"{INSTANCE}/rendered", wado.rendered),
    path(f"{INSTANCE}/thumbnail", wado.thumbnail),
    path(f"{FRAME}/rendered", wado.rendered),
    path(f"{FRAME}/thumbnail", wado.thumbnail),
    path(f"{INSTANCE}/frames/<str:numbers>", wado.frames),
]
