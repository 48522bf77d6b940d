"""Typed settings: the only reader of the server's environment.

`delineate up` fills these for its embedded services; a real server sets them itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class Environment(BaseSettings):
    """Every variable, its default and its reason."""

    model_config = SettingsConfigDict(env_prefix="", extra="ignore", frozen=True)

    # No default: a server with a known key signs anybody in.
    secret_key: str = Field(min_length=32, validation_alias="DELINEATE_SECRET_KEY")
    database_url: str = Field(validation_alias="DATABASE_URL")
    redis_url: str = Field(validation_alias="REDIS_URL")
    storage_url: str = Field(validation_alias="STORAGE_URL")  # file:///… or s3://bucket/prefix

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
    max_upload_bytes: int = Field(default=4 * 1024**3, validation_alias="DELINEATE_MAX_UPLOAD_BYTES")
    # A click without an answer is refused after this, so that a page never hangs on a dead worker.
    click_timeout_s: float = Field(default=10.0, validation_alias="DELINEATE_CLICK_TIMEOUT_S")

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
