"""Every route of the server against everybody: nobody, strangers, and members of each role.

The routes are read from the server itself. A new one fails here until the tables below say what it
needs and which objects its address names, and then must keep to it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import pytest
from asgiref.sync import sync_to_async
from django.core.files.uploadedfile import SimpleUploadedFile
from django.http import HttpResponse
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from delineate import storage
from delineate.accounts.models import User
from delineate.accounts.tokens import make_token
from delineate.audit.models import Event
from delineate.config import tokens
from delineate.config.sockets import sockets
from delineate.config.urls import api
from delineate.exports.models import Export
from delineate.learning.models import Comparison, Ranking, Snapshot, TrainingRun
from delineate.projects.models import Membership, Role
from delineate.projects.permissions import ALLOWED, Action
from delineate.studies import transfers
from delineate.studies.models import Upload
from mlworker.contract.artifacts import checkpoint_key
from tests.delineate.factories import (
    new_model,
    new_project,
    new_series,
    new_study,
    new_task,
    new_user,
)
from tests.sockets import Socket

pytestmark = pytest.mark.django_db

SCHEMA: dict[str, Any] = api.get_openapi_schema()
JSON = "application/json"

# Answered to anybody. Everything else wants a session or an API token.
PUBLIC = {
    ("GET", "/api/health"),
    ("GET", "/api/session"),
    ("POST", "/api/session"),
    ("GET", "/api/docs"),
    ("GET", "/api/openapi.json"),
    ("GET", "/"),  # the frontend's page
}
# About the person who asks.
OWN = {
    ("DELETE", "/api/session"),
    ("POST", "/api/session/password"),
    ("GET", "/api/session/tokens"),
    ("POST", "/api/session/tokens"),
    ("DELETE", "/api/session/tokens/{token_id}"),
    ("GET", "/api/projects"),
    ("POST", "/api/projects"),
}
OWN_LISTS = {("GET", "/api/projects")}
# Only on the page: never by an API token.
IN_PERSON = {
    ("POST", "/api/session"),
    ("DELETE", "/api/session"),
    ("POST", "/api/session/password"),
    ("GET", "/api/session/tokens"),
    ("POST", "/api/session/tokens"),
    ("DELETE", "/api/session/tokens/{token_id}"),
}
# About the installation: for administrators, whatever they are elsewhere.
ADMINISTRATION = {
    ("GET", "/api/models"),
    ("POST", "/api/models"),
    ("GET", "/api/models/uploads"),
    ("PUT", "/api/models/default"),
}
DICOMWEB = "/dicomweb/{project_id}"
STUDY = "studies/{study_uid}"
SERIES = f"{STUDY}/series/{{series_uid}}"
INSTANCE = f"{SERIES}/instances/{{sop_uid}}"
RESOURCES = {
    *("studies", "series", "instances"),
    *(STUDY, f"{STUDY}/series", f"{STUDY}/instances", f"{STUDY}/metadata"),
    *(SERIES, f"{SERIES}/instances", f"{SERIES}/metadata"),
    *(INSTANCE, f"{INSTANCE}/metadata", f"{INSTANCE}/bulkdata/7FE00010"),
    *(f"{INSTANCE}/rendered", f"{INSTANCE}/thumbnail", f"{INSTANCE}/frames/{{numbers}}"),
    *(f"{INSTANCE}/frames/{{number}}/{form}" for form in ("rendered", "thumbnail")),
}
# About a project's objects: what its members need.
NEEDED = {
    ("GET", "/api/projects/{project_id}"): Action.VIEW,
    ("PATCH", "/api/projects/{project_id}"): Action.MANAGE,
    ("PUT", "/api/projects/{project_id}/privacy"): Action.MANAGE,
    ("POST", "/api/projects/{project_id}/escrow"): Action.MANAGE,
    ("POST", "/api/projects/{project_id}/labels"): Action.MANAGE,
    ("PATCH", "/api/labels/{label_id}"): Action.MANAGE,
    ("DELETE", "/api/labels/{label_id}"): Action.MANAGE,
    ("POST", "/api/projects/{project_id}/members"): Action.MANAGE,
    ("PATCH", "/api/projects/{project_id}/members/{user_id}"): Action.MANAGE,
    ("DELETE", "/api/projects/{project_id}/members/{user_id}"): Action.MANAGE,
    ("GET", "/api/projects/{project_id}/events"): Action.VIEW_AUDIT,
    ("GET", "/api/projects/{project_id}/model"): Action.VIEW,
    ("POST", "/api/projects/{project_id}/uploads"): Action.UPLOAD,
    ("GET", "/api/projects/{project_id}/uploads"): Action.VIEW,
    ("GET", "/api/uploads/{upload_id}"): Action.VIEW,
    ("OPTIONS", "/api/projects/{project_id}/transfers"): Action.VIEW,
    ("POST", "/api/projects/{project_id}/transfers"): Action.UPLOAD,
    ("HEAD", "/api/transfers/{transfer_id}"): Action.UPLOAD,
    ("PATCH", "/api/transfers/{transfer_id}"): Action.UPLOAD,
    ("DELETE", "/api/transfers/{transfer_id}"): Action.UPLOAD,
    ("GET", "/api/projects/{project_id}/studies"): Action.VIEW,
    ("DELETE", "/api/studies/{study_id}"): Action.DELETE_STUDY,
    ("GET", "/api/projects/{project_id}/subjects"): Action.MANAGE_SUBJECTS,
    ("POST", "/api/subjects/{subject_id}/merge"): Action.MANAGE_SUBJECTS,
    ("POST", "/api/subjects/{subject_id}/erase"): Action.MANAGE_SUBJECTS,
    **{("GET", f"{DICOMWEB}/{resource}"): Action.VIEW for resource in RESOURCES},
    ("GET", "/api/projects/{project_id}/quarantine"): Action.RELEASE,
    ("POST", "/api/projects/{project_id}/quarantine/release"): Action.RELEASE,
    ("POST", "/api/series/{series_id}/release"): Action.RELEASE,
    ("POST", "/api/series/{series_id}/black-out"): Action.RELEASE,
    ("GET", "/api/series/{series_id}/preview"): Action.RELEASE,
    ("GET", "/api/projects/{project_id}/progress"): Action.VIEW,
    ("GET", "/api/projects/{project_id}/tasks"): Action.VIEW,
    ("POST", "/api/series/{series_id}/task"): Action.VIEW,
    ("GET", "/api/tasks/{task_id}"): Action.VIEW,
    ("GET", "/api/tasks/{task_id}/drafts/{slice_id}/{label_id}/journal"): Action.VIEW,
    ("POST", "/api/tasks/{task_id}/revisions"): Action.ANNOTATE,
    ("GET", "/api/tasks/{task_id}/revisions/{slice_id}/{label_id}"): Action.VIEW,
    ("POST", "/api/tasks/{task_id}/submit"): Action.ANNOTATE,
    ("POST", "/api/tasks/{task_id}/accept"): Action.REVIEW,
    ("POST", "/api/tasks/{task_id}/return"): Action.REVIEW,
    ("POST", "/api/tasks/{task_id}/reopen"): Action.REVIEW,
    ("POST", "/api/projects/{project_id}/exports"): Action.EXPORT,
    ("GET", "/api/projects/{project_id}/exports"): Action.VIEW,
    ("GET", "/api/exports/{export_id}"): Action.VIEW,
    ("GET", "/api/exports/{export_id}/file"): Action.EXPORT,
    ("POST", "/api/exports/{export_id}/reidentified"): Action.MANAGE,
    ("GET", "/api/projects/{project_id}/learning"): Action.VIEW,
    ("PUT", "/api/projects/{project_id}/learning/settings"): Action.LEARN,
    ("GET", "/api/projects/{project_id}/learning/parts"): Action.VIEW,
    ("POST", "/api/projects/{project_id}/learning/parts"): Action.LEARN,
    ("GET", "/api/projects/{project_id}/runs"): Action.VIEW,
    ("POST", "/api/projects/{project_id}/runs"): Action.LEARN,
    ("GET", "/api/runs/{run_id}"): Action.VIEW,
    ("GET", "/api/runs/{run_id}/log"): Action.VIEW,
    ("POST", "/api/runs/{run_id}/cancel"): Action.LEARN,
    ("GET", "/api/projects/{project_id}/models"): Action.VIEW,
    ("GET", "/api/projects/{project_id}/models/{digest}/card"): Action.VIEW,
    ("GET", "/api/projects/{project_id}/models/{digest}/file"): Action.LEARN,
    ("GET", "/api/projects/{project_id}/promotions"): Action.VIEW,
    ("POST", "/api/projects/{project_id}/promotions"): Action.LEARN,
    ("GET", "/api/projects/{project_id}/comparisons"): Action.VIEW,
    ("POST", "/api/projects/{project_id}/comparisons"): Action.LEARN,
    ("GET", "/api/comparisons/{comparison_id}"): Action.VIEW,
    ("GET", "/api/comparisons/{comparison_id}/masks"): Action.VIEW,
    ("GET", "/api/projects/{project_id}/rankings"): Action.VIEW,
    ("POST", "/api/projects/{project_id}/rankings"): Action.LEARN,
    ("GET", "/api/rankings/{ranking_id}/slices"): Action.VIEW,
    ("GET", "/api/projects/{project_id}/helping"): Action.VIEW,
    ("GET", "/api/projects/{project_id}/drift"): Action.VIEW,
}


@dataclass(frozen=True)
class Route:
    """A method and an address with names in braces for its objects."""

    method: str
    path: str

    @property
    def names(self) -> list[str]:
        """The names of its objects, in order."""
        return re.findall(r"{(\w+)}", self.path)

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def routes_of_the_api() -> Iterator[Route]:
    """What the API's own description lists."""
    for path, operations in SCHEMA["paths"].items():
        for method in operations:
            yield Route(method.upper(), path)


def other_routes(resolver: URLResolver | None = None, prefix: str = "/") -> Iterator[Route]:
    """What the URL table has beside the API; each is only read."""
    for entry in (resolver or get_resolver()).url_patterns:
        address = prefix + re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", str(entry.pattern))
        if isinstance(entry, URLPattern):
            yield Route("GET", "/" if "?!" in address else address)
        elif entry.app_name != "ninja":
            yield from other_routes(entry, address)


ROUTES = [*routes_of_the_api(), *other_routes()]
GUARDED = [route for route in ROUTES if (route.method, route.path) not in PUBLIC]
OF_OBJECTS = [route for route in GUARDED if (route.method, route.path) in NEEDED]


@dataclass(frozen=True)
class World:
    """A project with one of everything, and its people by role."""

    people: dict[Role, User]
    objects: dict[str, object]  # by the names that addresses use


def new_world(name: str) -> World:
    """One of everything, in a project of its own."""
    people = {role: new_user(f"{name}-{role}") for role in Role}
    project = new_project("liver", lead=people[Role.LEAD], name=name)
    for role in (Role.REVIEWER, Role.ANNOTATOR):
        Membership.objects.create(project=project, user=people[role], role=role)
    lead = people[Role.LEAD]
    upload = Upload.objects.create(project=project, by=lead, blob_count=1, size_bytes=1)
    transfer = transfers.begin(project, by=lead, expected_bytes=8)
    study = new_study(project)
    series = new_series(study)
    of_series = series.slices.select_related("instance")[0]
    task = new_task(series)
    export = Export.objects.create(project=project, by=lead, format="nifti")
    model = new_model(hashlib.sha256(name.encode()).hexdigest(), is_default=False)
    storage.put(checkpoint_key(model.digest), b"weights")
    run = TrainingRun.objects.create(
        project=project, number=1, parent=model, candidate=model, recipe={}
    )
    snapshot = Snapshot.objects.create(project=project, digest="0" * 64)
    comparison = Comparison.objects.create(
        project=project, snapshot=snapshot, first=model, second=model, by=lead
    )
    ranking = Ranking.objects.create(project=project, strategy="mix", model=model, by=lead, seed=0)
    return World(
        people,
        {
            "project_id": project.id,
            "label_id": project.labels.get().id,
            "user_id": people[Role.ANNOTATOR].id,
            "upload_id": upload.id,
            "subject_id": study.subject_id,
            "transfer_id": transfer.id,
            "study_id": study.id,
            "series_id": series.id,
            "slice_id": of_series.id,
            "task_id": task.id,
            "export_id": export.id,
            "pseudonyms": study.subject.pseudonym,
            "run_id": run.id,
            "comparison_id": comparison.id,
            "ranking_id": ranking.id,
            **dict.fromkeys(("digest", "first", "second"), model.digest),
            "token_id": make_token(lead, name="a script", by=lead).token.id,
            "study_uid": study.study_uid,
            "series_uid": series.series_uid,
            "sop_uid": of_series.instance.sop_instance_uid,
            "number": of_series.frame_number,
            "numbers": of_series.frame_number,
        },
    )


# Ids that are recognised where an example uses them.
MARKED = {f"{name}_id": f"<{name}>" for name in ("slice", "label", "series", "study", "user")}


@pytest.fixture
def world() -> World:
    """The project that is asked about."""
    return new_world("Livers")


@pytest.fixture
def elsewhere() -> World:
    """Another project; its people are strangers here."""
    return new_world("Spleens")


def ask(
    route: Route, *, objects: dict[str, object], user: User | None, secret: str | None = None
) -> HttpResponse:
    """Send the route a request that is right in every way but perhaps in who asks: ``user`` by
    session, or an API token's ``secret``.
    """
    headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
    client = Client(raise_request_exception=False, headers=headers)
    if user is not None:
        client.force_login(user)
    unknown = set(route.names) - set(objects)
    assert not unknown, f"{route} names {unknown}: put one of each into new_world()"
    path = route.path.format(**objects)
    send: Callable[..., HttpResponse] = getattr(client, route.method.lower())
    operation = SCHEMA["paths"].get(route.path, {}).get(route.method.lower(), {})
    content = operation.get("requestBody", {}).get("content", {})
    if "multipart/form-data" in content:
        file = SimpleUploadedFile("a.dcm", b"not dicom")
        return send(path, dict.fromkeys(("file", "files"), file))
    if JSON in content:
        body = example(content[JSON]["schema"], objects=objects)
        return send(path, body, content_type=JSON)
    return send(path)


def names_in_the_body_of(route: Route) -> list[str]:
    """The ids that the route's JSON names."""
    operation = SCHEMA["paths"].get(route.path, {}).get(route.method.lower(), {})
    content = operation.get("requestBody", {}).get("content", {}).get(JSON, {})
    body = str(example(content["schema"], objects=MARKED)) if content else ""
    return [name for name in MARKED if MARKED[name] in body]


def code_of(response: HttpResponse) -> str:
    """The code of a refusal; an answer to HEAD has no body, only the status."""
    if not response.content:
        return {401: "not_signed_in", 403: "not_allowed", 404: "not_found"}[response.status_code]
    return str(json.loads(response.content)["error"]["code"])


def example(schema: dict[str, Any], *, objects: Mapping[str, object], name: str = "") -> Any:
    """A value that ``schema`` allows; ids are those of ``objects`` with the same name."""
    if "$ref" in schema:
        found = SCHEMA["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        return example(found, objects=objects, name=name)
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return example(schema[several][0], objects=objects, name=name)
    if name in objects and schema.get("type") != "array":
        return str(objects[name])
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type"):
        case "object":
            return {
                key: example(schema["properties"][key], objects=objects, name=key)
                for key in schema.get("required", [])
            }
        case "array":
            each = example(schema["items"], objects=objects, name=name)
            return [each] * int(schema.get("minItems", 0))
        case "integer" | "number":
            if (above := schema.get("exclusiveMinimum")) is None:
                return schema.get("minimum", 0)
            below = schema.get("maximum", schema.get("exclusiveMaximum", above + 2))
            return (above + below) / 2
        case "boolean":
            return False
        case "string":
            return "#aabbcc" if name == "color" else "something"
    raise AssertionError(f"No example of {schema}")


def test_the_tables_name_every_route_and_no_other():
    listed = PUBLIC | OWN | ADMINISTRATION | set(NEEDED)
    served = {(route.method, route.path) for route in ROUTES}
    # These are ninja's own, beside its description of itself.
    served |= {("GET", "/api/docs"), ("GET", "/api/openapi.json")}
    assert served - listed == set(), "say in the tables what these need"
    assert listed - served == set(), "these are gone"


@pytest.mark.parametrize("route", GUARDED, ids=str)
def test_nobody_gets_anything(route, world):
    response = ask(route, objects=world.objects, user=None)
    assert response.status_code == 401
    assert code_of(response) == "not_signed_in"


@pytest.mark.parametrize("route", OF_OBJECTS, ids=str)
def test_for_strangers_nothing_exists(route, world, elsewhere):
    for stranger in elsewhere.people.values():
        response = ask(route, objects=world.objects, user=stranger)
        assert response.status_code == 404
        assert code_of(response) == "not_found"


OF_SEVERAL_OBJECTS = [
    route for route in OF_OBJECTS if len(route.names) + len(names_in_the_body_of(route)) > 1
]


@pytest.mark.parametrize("route", OF_SEVERAL_OBJECTS, ids=str)
def test_ones_own_object_is_no_way_to_anothers(route, world, elsewhere):
    first = route.names[0]
    crossed = {**world.objects, first: elsewhere.objects[first]}
    response = ask(route, objects=crossed, user=elsewhere.people[Role.LEAD])
    shows_nothing = response.status_code == 200 and response.content == b"[]"
    assert shows_nothing or response.status_code in (404, 409, 422)


@pytest.mark.parametrize("route", OF_OBJECTS, ids=str)
@pytest.mark.parametrize("role", list(Role))
def test_members_may_do_what_their_role_allows(route, role, world):
    response = ask(route, objects=world.objects, user=world.people[role])
    if NEEDED[route.method, route.path] in ALLOWED[role]:
        # The request may be refused for what it asks, but not for who asks.
        assert response.status_code not in (401, 403, 404)
    else:
        assert response.status_code == 403
        assert code_of(response) == "not_allowed"


@pytest.mark.parametrize("route", OF_OBJECTS, ids=str)
@pytest.mark.parametrize("role", list(Role))
def test_a_token_does_what_its_person_may(route, role, world):
    person = world.people[role]
    secret = make_token(person, name="a script", by=person).secret
    response = ask(route, objects=world.objects, user=None, secret=secret)
    if NEEDED[route.method, route.path] in ALLOWED[role]:
        assert response.status_code not in (401, 403, 404)
    else:
        assert response.status_code == 403
        assert code_of(response) == "not_allowed"


@pytest.mark.parametrize("route", OF_OBJECTS, ids=str)
def test_a_token_for_one_project_reaches_no_other(route, world, elsewhere):
    lead, other = elsewhere.people[Role.LEAD], elsewhere.objects["project_id"]
    assert isinstance(other, UUID)
    project_id: Any = world.objects["project_id"]
    Membership.objects.create(project_id=project_id, user=lead, role=Role.LEAD)
    narrow = make_token(lead, name="a script", project_id=other, by=lead)
    response = ask(route, objects=world.objects, user=None, secret=narrow.secret)
    assert response.status_code == 404
    assert code_of(response) == "not_found"
    response = ask(route, objects=elsewhere.objects, user=None, secret=narrow.secret)
    assert response.status_code not in (401, 403, 404)


READS = [route for route in OF_OBJECTS if route.method == "GET"]
WRITES = [route for route in GUARDED if route.method not in tokens.READS]


@pytest.mark.parametrize("route", WRITES, ids=str)
def test_a_token_for_reading_changes_nothing(route, world):
    lead = world.people[Role.LEAD]
    secret = make_token(lead, name="a script", read_only=True, by=lead).secret
    before = Event.objects.exclude(action="token_first_used").count()
    response = ask(route, objects=world.objects, user=None, secret=secret)
    assert response.status_code == 403
    assert code_of(response) == "token_read_only"
    assert Event.objects.exclude(action="token_first_used").count() == before


@pytest.mark.parametrize("route", READS, ids=str)
def test_a_token_for_reading_reads(route, world):
    lead = world.people[Role.LEAD]
    secret = make_token(lead, name="a script", read_only=True, by=lead).secret
    response = ask(route, objects=world.objects, user=None, secret=secret)
    assert response.status_code not in (401, 403, 404)


@pytest.mark.parametrize(
    "route", [route for route in ROUTES if (route.method, route.path) in IN_PERSON], ids=str
)
def test_what_a_leaked_token_must_not_do_wants_a_session(route, world):
    lead = world.people[Role.LEAD]
    secret = make_token(lead, name="a script", by=lead).secret
    # A session beside the token does not help: the token decides.
    for user in (None, lead):
        response = ask(route, objects=world.objects, user=user, secret=secret)
        assert response.status_code == 403
        assert code_of(response) == "session_needed"


NARROWED_OUT = ADMINISTRATION | {("POST", "/api/projects")}


@pytest.mark.parametrize(
    "route", [route for route in ROUTES if (route.method, route.path) in NARROWED_OUT], ids=str
)
def test_a_token_for_one_project_does_nothing_beside_it(route, world):
    administrator = world.people[Role.LEAD]
    administrator.is_superuser = True
    administrator.save()
    project: Any = world.objects["project_id"]
    secret = make_token(administrator, name="x", project_id=project, by=None).secret
    response = ask(route, objects=world.objects, user=None, secret=secret)
    assert response.status_code == 403
    assert code_of(response) == "token_narrowed"


def test_a_list_by_a_token_for_one_project_shows_that_one(world, elsewhere):
    lead = world.people[Role.LEAD]
    other: Any = elsewhere.objects["project_id"]
    Membership.objects.create(project_id=other, user=lead, role=Role.ANNOTATOR)
    secret = make_token(lead, name="a script", project_id=other, by=lead).secret
    route = Route("GET", "/api/projects")
    shown = json.loads(ask(route, objects={}, user=None, secret=secret).content)
    assert [project["id"] for project in shown] == [str(other)]


OF_THE_INSTALLATION = [route for route in GUARDED if (route.method, route.path) in ADMINISTRATION]


@pytest.mark.parametrize("route", OF_THE_INSTALLATION, ids=str)
def test_the_installation_is_for_its_administrators(route, world):
    for member in world.people.values():
        response = ask(route, objects=world.objects, user=member)
        assert response.status_code == 403
        assert code_of(response) == "not_allowed"
    administrator = new_user("administrator")
    administrator.is_superuser = True
    administrator.save()
    response = ask(route, objects=world.objects, user=administrator)
    # The request may be refused for what it asks, but not for who asks.
    assert response.status_code in (200, 201) or code_of(response) == "unknown_model"


@pytest.mark.parametrize(
    "route", [route for route in GUARDED if (route.method, route.path) in OWN_LISTS], ids=str
)
def test_lists_of_ones_own_show_nothing_of_others(route, world, elsewhere):
    response = ask(route, objects={}, user=elsewhere.people[Role.LEAD])
    shown = response.content.decode()
    assert str(elsewhere.objects["project_id"]) in shown
    for foreign in world.objects.values():
        assert len(str(foreign)) < 30 or str(foreign) not in shown


SOCKETS = [
    Route("GET", "/" + re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", str(entry.pattern)))
    for entry in sockets
]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("route", SOCKETS, ids=str)
async def test_every_socket_is_for_members_on_our_own_pages(route):
    world, browsers = await a_world_with_browsers()
    path = route.path.format(**world.objects)
    async with Socket(path, client=Client()) as nobody:
        assert await nobody.closed_with() == 4401
    secret = await secret_of(world.people[Role.LEAD])
    async with Socket(path, client=Client(), authorization=f"Bearer {secret}") as program:
        assert await program.closed_with() == 4401
    async with Socket(path, client=browsers["stranger"]) as stranger:
        assert await stranger.closed_with() == 4404
    gone = route.path.format(**{name: uuid4() for name in route.names})
    async with Socket(gone, client=browsers["member"]) as member:
        assert await member.closed_with() == 4404
    with pytest.raises(ConnectionRefusedError):
        async with Socket(path, client=browsers["member"], origin="http://evil.example"):
            pass


@sync_to_async
def secret_of(user: User) -> str:
    """The secret of a new token of ``user``."""
    return make_token(user, name="a script", by=user).secret


@sync_to_async
def a_world_with_browsers() -> tuple[World, dict[str, Client]]:
    """A project, and the browsers of one of its members and of a stranger to it."""
    world = new_world("Livers")
    browsers = {"member": Client(), "stranger": Client()}
    browsers["member"].force_login(world.people[Role.LEAD])
    browsers["stranger"].force_login(new_world("Spleens").people[Role.LEAD])
    return world, browsers
