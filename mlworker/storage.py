"""The object store as the worker uses it: arrays and checkpoints by the contract's keys."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from mlworker.contract.artifacts import (
    Array,
    ArtifactError,
    array_digest,
    pack_array,
    unpack_array,
)
from mlworker.contract.messages import SliceImage


class ArtifactMissing(ArtifactError):
    """Nothing lies under the key."""


class Store:
    """An object store at a URL: file:///folder or s3://bucket/prefix."""

    def __init__(self, url: str) -> None:
        self._files, root = fsspec.core.url_to_fs(url)
        self._root = root.rstrip("/")
        self.url = url

    def exists(self, key: str) -> bool:
        """Whether something lies under ``key``."""
        return bool(self._files.exists(self._path(key)))

    def get(self, key: str) -> bytes:
        """The bytes under ``key``; raises ArtifactMissing."""
        try:
            return cast(bytes, self._files.cat_file(self._path(key)))
        except FileNotFoundError as error:
            raise ArtifactMissing(f"nothing is stored under {key}") from error

    @contextmanager
    def as_file(self, key: str) -> Iterator[Path]:
        """What lies under ``key`` as a file to read, for as long as the context lasts."""
        if isinstance(self._files, LocalFileSystem):
            path = Path(self._path(key))
            if not path.is_file():
                raise ArtifactMissing(f"nothing is stored under {key}")
            yield path
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "object"
            try:
                self._files.get_file(self._path(key), str(path))
            except FileNotFoundError as error:
                raise ArtifactMissing(f"nothing is stored under {key}") from error
            yield path

    def put(self, key: str, data: bytes) -> None:
        """Store ``data`` under ``key``, whole or not at all."""
        if not isinstance(self._files, LocalFileSystem):
            self._files.pipe_file(self._path(key), data)
            return
        path = Path(self._path(key))
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
        try:
            with os.fdopen(handle, "wb") as target:
                target.write(data)
                target.flush()
                os.fsync(target.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def remove(self, key: str) -> None:
        """Leave nothing under ``key``."""
        with suppress(FileNotFoundError):
            self._files.rm_file(self._path(key))

    def get_array(self, key: str) -> Array:
        """The array under ``key``; raises ArtifactMissing or ArtifactError."""
        return unpack_array(self.get(key))

    def get_pixels(self, image: SliceImage) -> Array:
        """A slice's stored values; ArtifactError where they are not those that were stored."""
        stored = self.get_array(image.pixels_key)
        if stored.shape[:2] != (image.height, image.width) or array_digest(stored) != (
            image.pixels_digest
        ):
            raise ArtifactError("a slice's pixels are not those that were stored")
        return stored

    def put_array(self, key: str, array: Array) -> None:
        """Store an array under ``key``."""
        self.put(key, pack_array(array))

    def _path(self, key: str) -> str:
        assert key, "an empty key"
        assert not key.startswith("/"), key
        assert ".." not in key.split("/"), key
        return f"{self._root}/{key}"
