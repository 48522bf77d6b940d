"""The object store, by the contract's keys: local files or S3, one code path through fsspec."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import fsspec
from django.conf import settings
from fsspec.implementations.local import LocalFileSystem

from delineate.errors import NotFound

CHUNK_BYTES = 1024 * 1024
_UNFINISHED = ".writing-"  # begins the name of a file that is not yet an object


def put(key: str, data: bytes, *, durable: bool = True) -> None:
    """Store ``data`` under ``key``, whole or not at all; not ``durable``: it can be made anew."""
    try:
        put_chunks(key, iter([data]), durable=durable)
    except FileNotFoundError:  # its folder was deleted meanwhile: what comes after that stays
        put_chunks(key, iter([data]), durable=durable)


def put_chunks(key: str, chunks: Iterator[bytes], *, durable: bool = True) -> int:
    """Store a stream of chunks under ``key``, whole or not at all; the number of bytes."""
    filesystem, path = _locate(key)
    size = 0
    if not isinstance(filesystem, LocalFileSystem):
        with filesystem.open(path, "wb") as target:
            for chunk in chunks:
                size += target.write(chunk)
        return size
    folder = Path(path).parent
    folder.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=_UNFINISHED)
    try:
        with os.fdopen(handle, "wb") as target:
            for chunk in chunks:
                size += target.write(chunk)
            if durable:
                target.flush()
                os.fsync(target.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return size


def get(key: str) -> bytes:
    """The bytes under ``key``; NotFound where there are none."""
    filesystem, path = _locate(key)
    try:
        return cast(bytes, filesystem.cat_file(path))
    except FileNotFoundError as error:
        raise NotFound("A stored object is missing.", code="object_missing", key=key) from error


def open_for_reading(key: str) -> BinaryIO:
    """A seekable file of what lies under ``key``; NotFound where there is nothing."""
    filesystem, path = _locate(key)
    try:
        return cast(BinaryIO, filesystem.open(path, "rb"))
    except FileNotFoundError as error:
        raise NotFound("A stored object is missing.", code="object_missing", key=key) from error


def chunks_of(key: str) -> Iterator[bytes]:
    """What lies under ``key``, piece by piece; NotFound where there is nothing."""
    with open_for_reading(key) as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def exists(key: str) -> bool:
    """Whether something lies under ``key``."""
    filesystem, path = _locate(key)
    return bool(filesystem.exists(path))


def list_keys(prefix: str) -> list[str]:
    """The keys of all objects under ``prefix``, which ends in a slash."""
    assert prefix.endswith("/"), prefix
    filesystem, path = _locate(prefix.rstrip("/"))
    filesystem.invalidate_cache()  # others write there, too
    root = path.removesuffix(prefix.rstrip("/"))
    found = (each.removeprefix(root) for each in filesystem.find(path))
    return sorted(key for key in found if not key.rpartition("/")[2].startswith(_UNFINISHED))


def list_folders(prefix: str) -> list[str]:
    """The names of the folders directly under ``prefix``, which ends in a slash."""
    assert prefix.endswith("/"), prefix
    filesystem, path = _locate(prefix.rstrip("/"))
    filesystem.invalidate_cache()
    if not filesystem.exists(path):
        return []
    entries = filesystem.ls(path, detail=True)
    return sorted(
        entry["name"].rstrip("/").rpartition("/")[2]
        for entry in entries
        if entry["type"] == "directory"
    )


def size_of(key: str) -> int | None:
    """Bytes that lie under ``key``; None where there is nothing."""
    filesystem, path = _locate(key)
    try:
        return int(filesystem.size(path))
    except FileNotFoundError:
        return None


def sync_folder(prefix: str) -> None:
    """Let the names of what was stored under ``prefix`` outlive a power cut, as its bytes do."""
    assert prefix.endswith("/"), prefix
    filesystem, path = _locate(prefix.rstrip("/"))
    if not isinstance(filesystem, LocalFileSystem):
        return
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def delete(key: str) -> None:
    """Remove what lies under ``key``, if anything does."""
    filesystem, path = _locate(key)
    if filesystem.exists(path):
        filesystem.rm_file(path)


def delete_prefix(prefix: str) -> None:
    """Remove everything whose key starts with ``prefix``, which ends in a slash."""
    assert prefix.endswith("/"), prefix
    filesystem, path = _locate(prefix.rstrip("/"))
    while filesystem.exists(path):
        try:
            filesystem.rm(path, recursive=True)
        except FileNotFoundError:
            continue  # somebody else has removed a part of it
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:  # somebody has just written there
                raise


def delete_unfinished(prefix: str, *, older_than_s: float) -> None:
    """Remove what writers that were killed left beside the objects under ``prefix``."""
    assert prefix.endswith("/"), prefix
    filesystem, path = _locate(prefix.rstrip("/"))
    if not isinstance(filesystem, LocalFileSystem):
        return  # elsewhere an object appears only when it is whole
    for left in Path(path).glob(f"{_UNFINISHED}*"):
        with contextlib.suppress(FileNotFoundError):  # its writer lives and has finished it
            if left.stat().st_mtime < time.time() - older_than_s:
                left.unlink()


def free_bytes() -> int | None:
    """Room on the disk of the store; None where nobody can tell."""
    filesystem, root = _store(settings.ENVIRONMENT.storage_url)
    if not isinstance(filesystem, LocalFileSystem):
        return None
    folder = Path(root)
    folder.mkdir(parents=True, exist_ok=True)
    return shutil.disk_usage(folder).free


def _locate(key: str) -> tuple[fsspec.AbstractFileSystem, str]:
    assert key, "an empty key"
    assert not key.startswith("/"), key
    assert ".." not in key.split("/"), key
    filesystem, root = _store(settings.ENVIRONMENT.storage_url)
    return filesystem, f"{root}/{key}"


@functools.cache
def _store(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    filesystem, root = fsspec.core.url_to_fs(url)
    return filesystem, root.rstrip("/")
