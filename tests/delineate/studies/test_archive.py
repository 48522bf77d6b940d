"""Hostile zips and tars: every refusal by its code, and no member disturbs another."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import stat
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
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
    inner = _zip({"a": b"x"})
    monkeypatch.setattr(archive, "MAX_TOTAL_BYTES", len(inner))
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


def test_files_that_lie_upon_each_other_are_a_bomb():
    """A kernel that many files share, each reading over the headers of those behind it."""
    assert _refusals(_zip_of_quoted_headers(files=50)) == [*["zip_bomb"] * 49, None]


def test_files_that_share_one_place_are_read_once():
    assert _reads(_zip_of_one_place(files=5)) == [*["zip_bomb"] * 4, b"shared"]


def test_files_that_have_one_name_are_several():
    data = _zip({"same1": b"one", "same2": b"two"})
    assert _reads(data.replace(b"same2", b"same1")) == [b"one", b"two"]
    assert _reads(_tar({"same": b"one"})[:1024] + _tar({"same": b"two"})) == [b"one", b"two"]


HOSTILE_NAMES = [
    "a\0.dcm",
    "a\nb",
    "<img src=x onerror=alert(1)>",
    "\u202egnp.exe",
    "&" * 4000,
    "\u00e9/\u4e2d.dcm",
]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_are_neither_used_nor_repeated(kind, name):
    data = _zip({name: b"x"}) if kind == "zip" else _tar({name: b"x"})
    with _open(data) as opened:
        (entry,) = opened.entries()
        assert opened.read(entry) == b"x"
    assert repr(entry) == repr(archive.Entry(1, 0, (0,), folder=entry.folder))
    assert entry.folder == "" or set(entry.folder) <= set("0123456789abcdef")


@pytest.mark.parametrize("flag", [0x1, 0x40, 0x2000])
def test_every_way_of_encryption_is_refused(flag):
    data = bytearray(_zip({"secret": b"x"}))
    _patch(data, local=6, central=8, value=struct.pack("<H", flag))
    assert _refusals(bytes(data)) == ["encrypted"]


def test_a_part_of_a_zip_is_refused():
    data = bytearray(_zip({"a": b"x"}))
    end = data.index(b"PK\x05\x06")
    data[end + 4 : end + 6] = struct.pack("<H", 2)
    assert _refusals(bytes(data)) == ["split_archive"]
    assert _refusals(b"PK\x07\x08" + bytes(data)) == ["split_archive"]


def test_a_zip64_is_read(monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)  # what makes it write one
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        for name in ("a", "b"):
            with target.open(name, "w", force_zip64=True) as member:
                member.write(name.encode())
    assert b"PK\x06\x06" in buffer.getvalue()
    assert _reads(buffer.getvalue()) == [b"a", b"b"]


@pytest.mark.parametrize("cut", [1, 20, 46, 60])
def test_a_directory_that_is_cut_off_is_refused(cut):
    data = _zip({"a": b"x", "b": b"y"})
    start, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    assert _refusals(data[:start] + data[start + cut :]) == ["broken_zip"]
    assert _refusals(data[: end - cut] + data[end:]) == ["broken_zip"]


def test_a_device_in_a_zip_is_refused():
    info = zipfile.ZipInfo("device")
    info.external_attr = (stat.S_IFCHR | 0o666) << 16
    assert _refusals(_zip({info: b"x"})) == ["special_file"]


def test_a_directory_that_would_fill_the_memory_is_refused_before_it_is_read(monkeypatch):
    data = _zip({str(number): b"" for number in range(9)})
    monkeypatch.setattr(archive, "MAX_HEADERS", 8)
    assert _refusals(data) == ["too_many_files"]
    monkeypatch.setattr(archive, "MAX_HEADERS", 9)
    assert _refusals(data) == [None] * 9
    monkeypatch.setattr(archive, "MAX_DIRECTORY_BYTES", 100)
    assert _refusals(data) == ["too_many_files"]


def test_many_files_are_listed_in_little_memory(monkeypatch):
    monkeypatch.setattr(archive, "MAX_FILES", 10_000)
    data = _tar_of_empty_files(10_005)
    tracemalloc.start()
    try:
        with _open(data) as opened:
            refused = [
                (e.number, e.refusal.code) for e in opened.entries() if e.refusal is not None
            ]
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert refused == [(10_001, "too_many_files")]
    assert peak_bytes < 500 * 10_000


FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
PACKERS = [bytes, gzip.compress, bz2.compress, lzma.compress]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("pack", PACKERS)
def test_every_member_of_a_tar_is_a_file(format, pack):
    long = "anna/" + "/".join(["a folder"] * 12) + "/x"
    data = pack(_tar({"anna/": b"", "anna/1": b"one", long: b"two" * 300, "b": b""}, format=format))
    with _open(data, b"more") as opened:
        entries = list(opened.entries())
        assert [opened.read(e) for e in reversed(entries)] == [b"more", b"", b"two" * 300, b"one"]
    assert [entry.number for entry in entries] == [1, 2, 3, 4]
    assert entries[0].folder == entries[1].folder != entries[2].folder == ""


def test_a_tar_and_a_zip_agree_on_what_a_folder_is():
    (in_tar,) = _open(_tar({"anna/1": b""})).entries()
    (in_zip,) = _open(_zip({"anna/1": b""})).entries()
    assert in_tar.folder == in_zip.folder != ""


@pytest.mark.parametrize("pack", PACKERS[1:])
def test_what_is_compressed_and_no_tar_is_one_file(pack):
    data = pack(b"a volume" * 200)
    assert _reads(data) == [data]


@pytest.mark.parametrize("pack", PACKERS[1:])
def test_several_compressed_streams_are_one(pack):
    data = _tar({"a": b"x" * 5000, "b": b"y"})
    assert _reads(pack(data[:3000]) + pack(data[3000:])) == [b"x" * 5000, b"y"]


KINDS = {
    "link": (tarfile.LNKTYPE, tarfile.SYMTYPE),
    "special_file": (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"V", b"M", b"?"),
    "sparse": (tarfile.GNUTYPE_SPARSE,),
}


@pytest.mark.parametrize(
    ("code", "kind"), [(code, kind) for code, kinds in KINDS.items() for kind in kinds]
)
def test_what_is_no_plain_file_in_a_tar_is_refused(code, kind):
    info = tarfile.TarInfo("thing")
    info.type, info.linkname = kind, "/etc/passwd"
    data = info.tobuf() + _tar({"b": b"two"})
    assert _reads(data) == [code, b"two"]


def test_a_sparse_map_is_stepped_over():
    info = tarfile.TarInfo("holes")
    info.type, info.size = tarfile.GNUTYPE_SPARSE, 10
    header = bytearray(info.tobuf())
    header[482] = 1
    _sum_anew(header)
    more = bytearray(512)
    more[504] = 1
    data = bytes(header) + bytes(more) + bytes(512) + b"x" * 512 + _tar({"b": b"two"})
    assert _reads(data) == ["sparse", b"two"]


def test_a_sparse_file_of_pax_is_refused():
    info = tarfile.TarInfo("GNUSparseFile.0/holes")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "x"}
    assert _refusals(_tar({info: b"1"})) == ["sparse"]


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "C:/x"])
def test_a_path_out_of_a_tar_is_refused(name):
    assert _refusals(_tar({name: b"x"})) == ["unsafe_path"]


@pytest.mark.parametrize("name", ["__MACOSX/x", ".DS_Store"])
def test_litter_in_a_tar_is_told(name):
    (entry,) = _open(_tar({name: b"x"})).entries()
    assert entry.is_litter


@pytest.mark.parametrize("pack", PACKERS)
def test_of_a_tar_that_is_cut_off_the_beginning_is_read(pack):
    whole = _tar({"a": b"one", "b": bytes(range(256)) * 40})
    data = pack(whole[: 4 * 512])
    assert _reads(data) == [b"one", "broken_tar"]


@pytest.mark.parametrize("pack", PACKERS[1:])
def test_of_a_compressed_stream_that_is_cut_off_the_beginning_is_read(pack):
    noise = random.Random(1).randbytes(2 * 1024**2)
    data = pack(_tar({"a": b"one", "b": noise}))
    assert _reads(data[: len(data) // 2]) == [b"one", "broken_tar"]


def test_what_lies_behind_a_damaged_header_is_told_as_lost():
    data = bytearray(_tar({"a": b"one", "b": b"two", "c": b"three"}))
    data[2 * 512 + 3] ^= 0xFF
    assert _reads(bytes(data)) == [b"one", "broken_tar"]


@pytest.mark.parametrize(
    "said", [b"77777777777\0", b"\x80" + b"\xff" * 11, b"\xff" * 12, b"9" * 12]
)
def test_a_tar_that_lies_about_a_size_is_refused(said):
    data = bytearray(_tar({"a": b"one"}))
    data[124:136] = said
    _sum_anew(data)
    assert _reads(bytes(data)) == ["broken_tar"]


@pytest.mark.parametrize(
    "records",
    [
        b"0 a=b\n",
        b"99 a=b\n",
        b"x a=b\n",
        b"7 a=bb\n\n",
        b"13 size=-512\n",
        b"10 size=x\n",
        b"7 abcd\n",
    ],
)
def test_what_pax_says_wrongly_is_refused(records):
    data = _said(b"x", records) + _tar({"a": b"one"})
    assert _reads(data) == ["broken_tar"]


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
def test_what_is_said_in_front_of_a_member_is_bounded(kind):
    header = tarfile.TarInfo("said")
    header.type, header.size = kind, 1024**2 + 1
    assert _reads(header.tobuf() + bytes(3 * 1024**2)) == ["broken_tar"]
    assert _reads(_said(kind, b"") * 9 + _tar({"a": b"one"})) == ["broken_tar"]
    assert _reads(_said(kind, b"name" * (kind == b"L")) * 8 + _tar({"a": b"one"})) == [b"one"]


def test_headers_of_a_tar_are_counted(monkeypatch):
    monkeypatch.setattr(archive, "MAX_HEADERS", 3)
    data = _tar({"f/": b"", "g/": b"", "a": b"x", "b": b"y", "c": b"z"})
    assert _reads(data) == [b"x", "too_many_files"]


@pytest.mark.parametrize("pack", PACKERS[1:])
def test_a_tar_that_unpacks_to_too_much_is_a_bomb(pack):
    data = pack(_tar({"bomb": bytes(archive.RATIO_FROM_BYTES + 1)}))
    assert _reads(data) == ["zip_bomb"]


def test_what_a_compressed_tar_unpacks_to_is_counted(monkeypatch):
    monkeypatch.setattr(archive, "MAX_TOTAL_BYTES", 1000)
    assert _reads(gzip.compress(_tar({"a": b"x"}))) == ["upload_too_large"]


def test_a_stream_that_wants_much_memory_is_one_file():
    # lc, lp, pb as usual, and a dictionary of 1 GiB.
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1024**3}]
    data = lzma.compress(_tar({"a": b"x"}), filters=filters)
    assert _reads(data) == [data]


def test_a_file_in_a_tar_that_is_too_large_is_refused(monkeypatch):
    monkeypatch.setattr(archive, "MAX_FILE_BYTES", 10)
    assert _refusals(_tar({"a": b"x" * 11, "b": b"x" * 10})) == ["file_too_large", None]


def test_an_archive_within_another_may_be_larger_than_a_file(monkeypatch):
    inner = _zip({"a": b"x"}, method=zipfile.ZIP_STORED)
    monkeypatch.setattr(archive, "MAX_FILE_BYTES", len(inner) - 1)
    assert _reads(_tar({"inner.zip": inner})) == [b"x"]
    assert _reads(_zip({"inner.zip": inner}, method=zipfile.ZIP_STORED)) == [b"x"]


def test_archives_of_every_kind_are_opened_within_each_other():
    deep = _zip({"a": b"a", "pack.tar.gz": gzip.compress(_tar({"b": b"b", "c": b"c"}))})
    data = _tar({"anna/1": b"1", "anna/DEEP.zip": deep, "anna/2": b"2", "otto/3": b"3"})
    assert _reads(data) == [b"1", b"a", b"b", b"c", b"2", b"3"]
    with _open(data) as opened:
        entries = list(opened.entries())
        assert [opened.read(entry) for entry in reversed(entries)] == [
            b"3", b"2", b"c", b"b", b"a", b"1",
        ]  # fmt: skip
    assert len({entry.folder for entry in entries[:5]}) == 1
    assert entries[5].folder != entries[0].folder


@pytest.mark.parametrize("wrap", [lambda d: _tar({"i.tar": d}), lambda d: _zip({"i.tar": d})])
def test_tars_are_opened_only_so_deep(wrap):
    data = _tar({"a": b"x"})
    for _ in range(archive.MAX_DEPTH):
        data = wrap(data)
    assert _reads(data) == ["nested_too_deep"]


def test_what_is_not_the_archive_that_it_is_called_is_refused():
    assert _reads(_tar({"a.zip": b"text", "a.tgz": gzip.compress(b"text"), "b": b"two"})) == [
        "no_archive",
        "no_archive",
        b"two",
    ]


def test_a_volume_in_an_archive_stays_a_file():
    data = gzip.compress(b"volume" * 500)
    assert _reads(_tar({"brain.nii.gz": data})) == [data]


def test_what_tarfile_lists_is_listed():
    """Against the other implementation, over every dialect that it writes."""
    for format in FORMATS:
        files = {f"{'d/' * depth}{'n' * depth}": b"x" * (97 * depth) for depth in range(1, 40, 3)}
        data = _tar(files, format=format)
        assert _reads(data) == list(files.values())


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


def _tar(
    files: dict[str, bytes] | dict[tarfile.TarInfo, bytes], *, format: int = tarfile.PAX_FORMAT
) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as target:
        for name, content in files.items():
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            if info.name.endswith("/"):
                info.type = tarfile.DIRTYPE
            info.size = len(content)
            target.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def _tar_of_empty_files(count: int) -> bytes:
    header = bytearray(tarfile.TarInfo("f" * 6).tobuf())
    blocks: list[bytes] = []
    for number in range(count):
        header[:6] = b"%06d" % number
        _sum_anew(header)
        blocks.append(bytes(header))
    return b"".join(blocks) + bytes(1024)


def _sum_anew(data: bytearray) -> None:
    """Give the header at the beginning the checksum that it should have."""
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])


def _said(kind: bytes, text: bytes) -> bytes:
    """A header that says something of the next member."""
    header = tarfile.TarInfo("said")
    header.type, header.size = kind, len(text)
    return header.tobuf() + text + bytes(-len(text) % 512)


def _zip_of_quoted_headers(*, files: int) -> bytes:
    """As D. Fifield's zbsm: each file's stream quotes the next one's header, then goes on in it."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    stream = squeeze.compress(b"a" * 1000) + squeeze.flush()
    content = b"a" * 1000
    data, directory = b"", []
    for number in reversed(range(files)):
        name = b"%03d" % number
        fields = (zlib.crc32(content), len(stream), len(content))
        local = (
            struct.pack("<4sHHHHHLLLHH", b"PK\3\4", 20, 0, 8, 0, 0, *fields, len(name), 0) + name
        )
        directory.append((name, fields, len(local)))
        data = local + (data or stream)
        # Of the file in front: a block as it is, which is this header, then this file's stream.
        stream = struct.pack("<BHH", 0, len(local), len(local) ^ 0xFFFF) + local + stream
        data = struct.pack("<BHH", 0, len(local), len(local) ^ 0xFFFF) + data
        content = local + content
    return _with_directory(data[5:], list(reversed(directory)), step=5)


def _zip_of_one_place(*, files: int) -> bytes:
    content = b"shared"
    fields = (zlib.crc32(content), len(content), len(content))
    data = struct.pack("<4sHHHHHLLLHH", b"PK\3\4", 20, 0, 0, 0, 0, *fields, 1, 0) + b"x" + content
    return _with_directory(data, [(b"x", fields, 0)] * files, step=0, method=0)


def _with_directory(
    data: bytes,
    entries: list[tuple[bytes, tuple[int, int, int], int]],
    *,
    step: int,
    method: int = 8,
) -> bytes:
    directory, offset = b"", 0
    for name, fields, length in entries:
        directory += (
            struct.pack("<4sHHHHHH", b"PK\1\2", 20, 20, 0, method, 0, 0)
            + struct.pack("<LLL", *fields)
            + struct.pack("<HHHHHLL", len(name), 0, 0, 0, 0, 0, offset)
            + name
        )
        offset += length + step if length else 0
    count = len(entries)
    end = struct.pack("<4sHHHHLLH", b"PK\5\6", 0, 0, count, count, len(directory), len(data), 0)
    return data + directory + end
