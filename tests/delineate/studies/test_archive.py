"""Hostile zips: every refusal by its code, and no member disturbs another."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
from collections.abc import Callable

import pytest

from delineate.studies import archive
from delineate.studies.archive import Archive, Refused


def test_every_member_of_a_zip_is_a_file():
    opened = _open(_zip({"folder/": b"", "folder/a": b"one", "b": b"two"}))
    entries = list(opened.entries())
    assert [entry.number for entry in entries] == [1, 2]
    assert [opened.read(entry) for entry in entries] == [b"one", b"two"]


def test_what_is_no_zip_is_one_file():
    opened = _open(b"just bytes", b"and more")
    assert [opened.read(entry) for entry in opened.entries()] == [b"just bytes", b"and more"]


def test_an_empty_zip_has_no_files():
    assert list(_open(_zip({})).entries()) == []


def test_numbers_go_on_from_blob_to_blob():
    opened = _open(_zip({"a": b"1", "b": b"2"}), b"3")
    assert [opened.read(entry) for entry in opened.entries()] == [b"1", b"2", b"3"]
    assert [entry.number for entry in opened.entries()] == [1, 2, 3]


def test_folders_are_told_apart_and_not_named():
    one, same, other, none = _open(
        _zip({"anna/1": b"", "anna/x/2": b"", "otto\\1": b"", "3": b""})
    ).entries()
    assert one.folder == same.folder != other.folder
    assert none.folder == ""
    assert "anna" not in one.folder


def test_a_name_is_what_the_sender_sees_and_is_not_shown():
    inner = _zip({"b.png": b"2"})
    zipped = _zip({"anna/a.png": b"1", "anna\\more.zip": inner, "otto.zip": inner})
    with _open(zipped, b"3", b"4", names={0: "set/scans.zip", 1: "set/c.png"}) as opened:
        entries = list(opened.entries())
    assert [entry.name for entry in entries] == [
        "set/anna/a.png",
        "set/anna/b.png",
        "set/b.png",
        "set/c.png",
        "",
    ]
    assert "anna" not in repr(entries)


@pytest.mark.parametrize("name", ["__MACOSX/x", ".DS_Store", "a/Thumbs.db", "a/desktop.ini"])
def test_litter_is_told(name):
    (entry,) = _open(_zip({name: b"x"})).entries()
    assert entry.is_litter


@pytest.mark.parametrize(
    "name", ["../x", "a/../../x", "/etc/x", "C:/x", "C:\\x", "a\\..\\x", "\\\\host\\x"]
)
def test_a_path_out_of_the_zip_is_refused(name):
    assert _refusals(_zip({name: b"x"})) == ["unsafe_path"]


def test_a_link_is_refused():
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    assert _refusals(_zip({info: b"/etc/passwd"})) == ["link"]


def test_an_encrypted_file_is_refused():
    data = bytearray(_zip({"secret": b"x"}))
    _patch(data, local=6, central=8, value=struct.pack("<H", 1))
    assert _refusals(bytes(data)) == ["encrypted"]


def test_a_zip_in_a_zip_is_opened_where_it_lies():
    disc = _zip({"deep/a": b"a", "third.zip": _zip({"b": b"b"}), "c": b"c"})
    data = _zip({"anna/1": b"1", "anna/inner.ZIP": disc, "anna/2": b"2", "otto/3": b"3"})

    assert _reads(data) == [b"1", b"a", b"b", b"c", b"2", b"3"]
    with _open(data) as opened:
        folders = [entry.folder for entry in opened.entries()]
    assert len(set(folders[:5])) == 1
    assert folders[5] != folders[0]


def test_files_of_several_inner_zips_are_read_in_any_order():
    data = _zip({f"{n}.zip": _zip({"x": b"x%d" % n, "y": b"y%d" % n}) for n in range(3)})
    with _open(data) as opened:
        entries = list(opened.entries())
        assert [opened.read(entry) for entry in reversed(entries)] == [
            b"y2", b"x2", b"y1", b"x1", b"y0", b"x0",
        ]  # fmt: skip


def test_zips_are_opened_only_so_deep():
    data = _zip({"a": b"x"})
    for _ in range(archive.MAX_DEPTH):
        data = _zip({"inner.zip": data, "beside": b"b"})
    assert _reads(data) == ["nested_too_deep", *[b"b"] * archive.MAX_DEPTH]


def test_a_damaged_inner_zip_leaves_the_others_alone():
    assert _reads(_zip({"a.zip": b"PK\x03\x04 no directory", "b": b"two"})) == [
        "broken_zip",
        b"two",
    ]


def test_what_leads_out_of_an_inner_zip_is_refused():
    assert _refusals(_zip({"a.zip": _zip({"../x": b"x", "y": b"y"})})) == ["unsafe_path", None]


def test_files_in_inner_zips_are_counted(monkeypatch):
    monkeypatch.setattr(archive, "MAX_FILES", 2)
    inner = _zip({str(number): b"x" for number in range(9)})
    assert _refusals(_zip({"a.zip": inner})) == [None, None, "too_many_files"]


def test_what_inner_zips_unpack_to_is_counted(monkeypatch):
    monkeypatch.setattr(archive, "MAX_TOTAL_BYTES", 100)
    inner = _zip({"a": b"x"})
    assert len(inner) > 100
    assert _reads(_zip({"a.zip": inner, "b.zip": inner})) == [b"x", "upload_too_large"]


def test_a_zip_bomb_is_refused():
    assert _refusals(_zip({"bomb": bytes(archive.RATIO_FROM_BYTES + 1)})) == ["zip_bomb"]


def test_a_small_file_may_compress_well():
    assert _refusals(_zip({"black": bytes(1024**2)})) == [None]


def test_a_file_that_promises_to_be_too_large_is_refused(monkeypatch):
    monkeypatch.setattr(archive, "MAX_FILE_BYTES", 10)
    assert _refusals(_zip({"a": b"x" * 11, "b": b"x" * 10})) == ["file_too_large", None]


def test_a_single_file_that_is_too_large_is_refused(monkeypatch):
    monkeypatch.setattr(archive, "MAX_FILE_BYTES", 10)
    assert _reads(b"x" * 11) == ["file_too_large"]


def test_an_upload_that_unpacks_to_too_much_is_refused(monkeypatch):
    monkeypatch.setattr(archive, "MAX_TOTAL_BYTES", 5)
    assert _reads(_zip({"a": b"x" * 10, "b": b"x"})) == [b"x" * 10, "upload_too_large"]


def test_too_many_files_are_refused(monkeypatch):
    monkeypatch.setattr(archive, "MAX_FILES", 2)
    data = _zip({str(number): b"x" for number in range(9)})
    assert _refusals(data) == [None, None, "too_many_files"]


@pytest.mark.parametrize("data", [b"PK\x03\x04", b"PK\x03\x04 no directory", b"PK\x05\x06\0"])
def test_a_damaged_zip_is_refused(data):
    assert _refusals(data) == ["broken_zip"]


def test_a_zip_that_is_cut_off_is_refused():
    data = _zip({"a": b"x" * 100})
    assert _refusals(data[: len(data) // 2]) == ["broken_zip"]


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_a_damaged_member_is_refused_and_the_others_are_read(method):
    data = bytearray(_zip({"a": bytes(range(256)) * 8, "b": b"two"}, method=method))
    start = 30 + len("a") + (9 if method == zipfile.ZIP_LZMA else 0)
    data[start : start + 8] = b"\xff" * 8
    assert _reads(bytes(data)) == ["broken_zip", b"two"]


def test_a_member_that_lies_about_its_size_is_refused():
    data = bytearray(_zip({"a": b"x" * 100}))
    _patch(data, local=22, central=24, value=struct.pack("<L", 3))
    assert _reads(bytes(data)) == ["broken_zip"]


def test_an_unknown_compression_is_refused():
    data = bytearray(_zip({"a": b"x" * 100}))
    _patch(data, local=8, central=10, value=struct.pack("<H", 97))
    assert _reads(bytes(data)) == ["broken_zip"]


def test_a_member_whose_name_is_not_text_is_refused():
    data = bytearray(_zip({"é": b"x"}))
    data[30:32] = b"\xff\xff"  # in front of the bytes; the directory still has the name
    assert _reads(bytes(data)) == ["broken_zip"]


def _open(*blobs: bytes, names: dict[int, str] | None = None) -> Archive:
    return Archive([_opener(blob) for blob in blobs], names=names)


def _opener(blob: bytes) -> Callable[[], io.BytesIO]:
    return lambda: io.BytesIO(blob)


def _refusals(data: bytes) -> list[str | None]:
    with _open(data) as opened:
        return [entry.refusal.code if entry.refusal else None for entry in opened.entries()]


def _reads(data: bytes) -> list[str | bytes]:
    """Each file's bytes, or why it is refused when it is read."""
    results: list[str | bytes] = []
    with _open(data) as opened:
        for entry in opened.entries():
            try:
                results.append(entry.refusal.code if entry.refusal else opened.read(entry))
            except Refused as refused:
                results.append(refused.code)
    return results


def _zip(
    files: dict[str, bytes] | dict[zipfile.ZipInfo, bytes], *, method: int = zipfile.ZIP_DEFLATED
) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as target:
        for name, content in files.items():
            target.writestr(name, content)
    return buffer.getvalue()


def _patch(data: bytearray, *, local: int, central: int, value: bytes) -> None:
    """Write ``value`` at these offsets of the first member's two headers."""
    for start, offset in ((data.index(b"PK\x03\x04"), local), (data.index(b"PK\x01\x02"), central)):
        data[start + offset : start + offset + len(value)] = value
