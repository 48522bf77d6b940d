"""Every address of the server."""

from __future__ import annotations

from django.urls import include, path, re_path

from delineate.accounts.api import router as accounts
from delineate.annotation.api import router as annotation
from delineate.config.health import health
from delineate.config.http import new_api
from delineate.config.pages import page
from delineate.exports.api import router as exports
from delineate.learning.api import router as learning
from delineate.learning.ranking_api import router as rankings
from delineate.projects.api import router as projects
from delineate.registry.api import router as registry
from delineate.studies.api import router as studies
from delineate.studies.quarantine_api import router as quarantine
from delineate.studies.tus import router as transfers

api = new_api()
for router in (
    accounts,
    projects,
    registry,
    studies,
    transfers,
    quarantine,
    annotation,
    exports,
    learning,
    rankings,
):
    api.add_router("", router)

urlpatterns = [
    path("api/health", health),
    path("api/", api.urls),
    path("dicomweb/<uuid:project_id>/", include("delineate.studies.dicomweb.urls")),
    # Assets have hashed names and are answered before this, or do not exist.
    re_path(r"^(?!api/|ws/|dicomweb/|static/|assets/)", page),
]
handler404 = "delineate.config.http.no_such_address"
handler500 = "delineate.config.http.went_wrong"
