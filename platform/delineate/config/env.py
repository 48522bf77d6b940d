"""Typed settings: the only reader of the server's environment.

`delineate up` fills these for its embedded services; a real server sets them itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

# PS3.5 6.2: an AE title has at most 16 characters of ASCII, without backslash or control.
_AE_TITLE: Final = r"[ -\[\]-~]{1,16}"


@dataclass(frozen=True)
class Destination:
    """Where images that come without a browser go, and whose upload they are."""

    project: str  # name or id
    username: str


class Receiving(BaseSettings):
    """Ways in for images beside the pages; each is closed until it is set up."""

    model_config = SettingsConfigDict(env_prefix="DELINEATE_", extra="ignore", frozen=True)

    # The port of the C-STORE receiver; 11112 is what the standard names (PS3.8 9.1.1).
    dicom_port: int | None = Field(default=None, ge=1, le=65535)
    # DICOM here is neither encrypted nor signed: other machines only where somebody says so.
    dicom_host: str = "127.0.0.1"
    dicom_ae_title: str = Field(default="DELINEATE", pattern=f"^{_AE_TITLE}$")
    # Who may send, "CT1=Project:anna, PACS=…": calling AE title, project's name or id, account.
    dicom_callers: Annotated[Mapping[str, Destination], NoDecode] = Field(default_factory=dict)
    # Folders whose files are taken in: "/incoming/ct=Project:anna, /incoming/mr=…".
    watch: Annotated[Mapping[Path, Destination], NoDecode] = Field(default_factory=dict)
    # PostgreSQL stops for good when it cannot write; a gigabyte lets running work end well.
    min_free_bytes: int = Field(default=1024**3, ge=0)

    @field_validator("dicom_callers", "watch", mode="before")
    @classmethod
    def _read_destinations(cls, value: object) -> object:
        return _destinations(value) if isinstance(value, str) else value

    @field_validator("dicom_callers")
    @classmethod
    def _must_be_ae_titles(cls, callers: Mapping[str, Destination]) -> Mapping[str, Destination]:
        if wrong := [title for title in callers if not re.fullmatch(_AE_TITLE, title)]:
            raise ValueError(f"{', '.join(wrong)} cannot be an AE title: 1 to 16 characters")
        return callers

    @field_validator("watch")
    @classmethod
    def _must_be_absolute(cls, watch: Mapping[Path, Destination]) -> Mapping[Path, Destination]:
        if relative := [str(folder) for folder in watch if not folder.is_absolute()]:
            raise ValueError(f"{', '.join(relative)} must begin with a slash")
        if inner := [str(folder) for folder in watch if watch.keys() & set(folder.parents)]:
            raise ValueError(f"{', '.join(inner)} lies in another folder that is watched")
        return watch

    @model_validator(mode="after")
    def _must_say_who_may_send(self) -> Self:
        if self.dicom_port is not None and not self.dicom_callers:
            raise ValueError(
                "DELINEATE_DICOM_PORT opens a door, and DELINEATE_DICOM_CALLERS must say who may "
                "come in: CALLING_AE_TITLE=Project:username"
            )
        return self


class Environment(Receiving):
    """Every variable, its default and its reason."""

    # No default: a server with a known key signs anybody in.
    secret_key: str = Field(min_length=32, validation_alias="DELINEATE_SECRET_KEY")
    database_url: str = Field(validation_alias="DATABASE_URL")
    redis_url: str = Field(validation_alias="REDIS_URL")
    storage_url: str = Field(validation_alias="STORAGE_URL")  # file:///… or s3://bucket/prefix
    # Connections that a process keeps open for its requests; 0: each thread has its own. The web
    # process runs every request in a new thread, and a new connection takes longer than an answer.
    database_pool: int = Field(default=0, ge=0, validation_alias="DELINEATE_DATABASE_POOL")

    # Comma-separated origins the browser may come from; sockets and cookies are held to them.
    origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=("http://127.0.0.1:8700", "http://localhost:8700"),
        validation_alias="DELINEATE_ORIGINS",
    )
    frontend_dist: Path = Field(
        default=Path(__file__).parents[3] / "frontend" / "dist",
        validation_alias="DELINEATE_FRONTEND",
    )
    # An upload larger than this is refused at the door; a CT of 2,000 slices is about 1 GB.
    max_upload_bytes: int = Field(
        default=4 * 1024**3, validation_alias="DELINEATE_MAX_UPLOAD_BYTES"
    )
    # A click without an answer is refused after this, so that a page never hangs on a dead worker.
    click_timeout_s: float = Field(default=10.0, validation_alias="DELINEATE_CLICK_TIMEOUT_S")

    # Where the demo keeps the passwords it makes; without it there is no demo.
    demo_sign_ins: Path | None = Field(default=None, validation_alias="DELINEATE_DEMO_SIGN_INS")

    @field_validator("origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(origin.strip() for origin in value.split(",") if origin.strip())
        return value

    @classmethod
    def read(cls) -> Environment:
        """Settings from the process environment; raises pydantic's error naming what is missing."""
        return cls()


class Machine(Receiving):
    """What `delineate up` may be told about this machine; each part has a working default."""

    # Each of these three, when given, takes the place of the embedded counterpart.
    database_url: str | None = Field(default=None, validation_alias="DATABASE_URL")
    redis_url: str | None = Field(default=None, validation_alias="REDIS_URL")
    storage_url: str | None = Field(default=None, validation_alias="STORAGE_URL")

    secret_key: str | None = Field(default=None, min_length=32)  # else made once, kept in var/
    origins: str | None = None  # else this machine's own names, with the port that is used
    frontend: Path = Path(__file__).parents[3] / "frontend" / "dist"
    var: Path = Path(__file__).parents[3] / "var"
    port: int = Field(default=8700, ge=1, le=65535)

    # For two cores, the least we promise to run on. A click takes one: several would wait for each
    # other whenever something else runs (docs/decisions/2026-11-23-threads-of-a-click.md). With
    # more cores than busy threads give it two, and an encoding as many as there are.
    interactive_threads: int = Field(default=1, ge=1)
    encode_threads: int = Field(default=2, ge=1)
    train_threads: int = Field(default=2, ge=1)
    server_processes: int = Field(default=2, ge=1)  # uploads and exports handled at the same time

    @classmethod
    def read(cls) -> Machine:
        """Settings from the process environment; raises pydantic's error naming what is wrong."""
        return cls()


def _destinations(text: str) -> dict[str, Destination]:
    """Read "NAME=Project:username, …"; a project whose name has a comma is given by its id."""
    read: dict[str, Destination] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, destination = part.partition("=")
        # Of the last colon: projects' names may have one, accounts' have none.
        project, colon, username = destination.rpartition(":")
        if not (equals and colon and name.strip() and project.strip() and username.strip()):
            raise ValueError(f"“{part}” is not of the form NAME=Project:username")
        if name.strip() in read:
            raise ValueError(f"{name.strip()} is named twice")
        read[name.strip()] = Destination(project.strip(), username.strip())
    return read


def inherited() -> dict[str, str]:
    """The process environment as it is, for the processes that are started from here."""
    return dict(os.environ)


def adopt(values: dict[str, str]) -> None:
    """Let this process read its settings as the processes of an installation do."""
    os.environ.update(values)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "delineate.config.settings")
