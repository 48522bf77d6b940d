"""Which of the forms that we have a client gets, by its Accept (PS3.18 8.7). Values only.

Clients write the same wish in many ways: the type and transfer syntax of parts quoted or not (and
what is quoted may hold a comma or a semicolon), ``*`` for any transfer syntax, weights, several
wishes in one header. A wish without a transfer syntax is for the default of its type, which is
explicit little endian: nobody gets compressed pixels without asking for them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless

from delineate.errors import Invalid

MULTIPART: Final = "multipart/related"
DICOM: Final = "application/dicom"
OCTETS: Final = "application/octet-stream"
DICOM_JSON: Final = "application/dicom+json"
JSON: Final = "application/json"
JLS: Final = "image/jls"

_DEFAULT_TRANSFER_SYNTAX: Final = {
    DICOM: str(ExplicitVRLittleEndian),
    OCTETS: str(ExplicitVRLittleEndian),
    JLS: str(JPEGLSLossless),
}
# Between separators: quoted strings, in which separators are letters, and everything else.
_PIECES: Final = {sign: re.compile(rf'(?:"(?:\\.|[^"\\])*"|[^"{sign}])+') for sign in ",;"}


class NotAcceptable(Invalid):
    """Nothing that we have is what the client takes."""

    status = 406
    code = "not_acceptable"


@dataclass(frozen=True)
class Form:
    """One way to answer: bare, or as the parts of a multipart answer."""

    media_type: str
    transfer_syntax: str = ""
    is_multipart: bool = False


@dataclass(frozen=True)
class MediaType:
    """A media type, or a range of them, as a header has it; lower case, without quotes."""

    name: str
    parameters: dict[str, str] = field(default_factory=dict)

    @property
    def weight(self) -> float:
        """How much it is wished for, 0 … 1."""
        try:
            return min(1.0, max(0.0, float(self.parameters.get("q", 1))))
        except ValueError:
            return 0.0


def choose(accept: str, forms: Sequence[Form]) -> Form:
    """The form wished for most; of equally wished ones the first. Raises NotAcceptable."""
    wishes = [media_type(each) for each in _PIECES[","].findall(accept)] or [MediaType("*/*")]
    for wish in sorted(wishes, key=lambda wish: -wish.weight):
        for form in forms:
            if wish.weight > 0 and _fits(wish, form):
                return form
    names = sorted({_in_words(form) for form in forms})
    raise NotAcceptable(f"This is to be had as {', or '.join(names)}.", forms=names)


def media_type(text: str) -> MediaType:
    """What a Content-Type, or one range of an Accept, says."""
    name, *rest = (piece.strip() for piece in _PIECES[";"].findall(text) or [""])
    parameters = {}
    for each in rest:
        key, _, value = each.partition("=")
        parameters[key.strip().lower()] = re.sub(r"\\(.)", r"\1", value.strip().strip('"'))
    return MediaType(name.lower(), parameters)


def _fits(wish: MediaType, form: Form) -> bool:
    name = wish.name
    if form.is_multipart and name in (MULTIPART, "multipart/*"):
        name = wish.parameters.get("type", "*/*").lower()
    elif form.is_multipart and name != "*/*":
        return False
    kind, _, _ = form.media_type.partition("/")
    if name not in (form.media_type, f"{kind}/*", f"{kind}/", "*/*", "*"):
        return False
    if not form.transfer_syntax:
        return True
    syntax = wish.parameters.get("transfer-syntax")
    if syntax is None:
        return form.transfer_syntax == _DEFAULT_TRANSFER_SYNTAX[form.media_type]
    return syntax in ("*", form.transfer_syntax)


def _in_words(form: Form) -> str:
    return f"{MULTIPART} of {form.media_type}" if form.is_multipart else form.media_type
