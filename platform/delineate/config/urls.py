"""Every address of the server."""

from __future__ import annotations

from django.urls import path, re_path

from delineate.accounts.api import router as accounts
from delineate.annotation.api import router as annotation
from delineate.config.health import health
from delineate.config.http import new_api
from delineate.config.pages import page
from delineate.exports.api import router as exports
from delineate.projects.api import router as projects
from delineate.registry.api import router as registry
from delineate.studies import dicomweb
from delineate.studies.api import router as studies
from delineate.studies.quarantine_api import router as quarantine

api = new_api()
for router in (accounts, projects, registry, studies, quarantine, annotation, exports):
    api.add_router("", router)

SERIES = "dicomweb/<uuid:project_id>/studies/<str:study_uid>/series/<str:series_uid>"

urlpatterns = [
    path("api/health", health),
    path("api/", api.urls),
    path(f"{SERIES}/metadata", dicomweb.series_metadata),
    path(f"{SERIES}/instances/<str:sop_uid>/frames/<int:number>", dicomweb.frame),
    # Assets have hashed names and are answered before this, or do not exist.
    re_path(r"^(?!api/|ws/|dicomweb/|static/|assets/)", page),
]
handler404 = "delineate.config.http.no_such_address"
handler500 = "delineate.config.http.went_wrong"
