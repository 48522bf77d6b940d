"""The error tree. Clients switch on ``code``, never on the sentence.

    DelineateError                      500 internal
    ├── NotFound                        404 not_found         also: "not yours to know of"
    ├── NotSignedIn                     401 not_signed_in
    ├── NotAllowed                      403 not_allowed       a member, without the right
    ├── Invalid                         422 (given)           the request is wrong as it stands
    ├── Conflict                        409 (given)           the state has moved on, or forbids it
    ├── TooMany                         429 too_many
    └── Unavailable                     503 (given)           a part of the system is away

Translated in two places only: HTTP (config/http.py) and WebSocket (consumers).
"""

from __future__ import annotations

from typing import Any, ClassVar


class DelineateError(Exception):
    """Base: a code, an HTTP status, a full sentence, and data for the client."""

    status: ClassVar[int] = 500
    code: str = "internal"

    def __init__(self, sentence: str, *, code: str | None = None, **data: Any) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        if code is not None:
            self.code = code
        self.data = data

    def as_dict(self) -> dict[str, Any]:
        """What the client is told."""
        return {"code": self.code, "message": self.sentence, "data": self.data}


class NotFound(DelineateError):
    """Does not exist, or the caller may not know that it does."""

    status = 404
    code = "not_found"


class NotSignedIn(DelineateError):
    """No session, and no token that is good."""

    status = 401
    code = "not_signed_in"


class NotAllowed(DelineateError):
    """A member of the project, whose role does not include this."""

    status = 403
    code = "not_allowed"


class Invalid(DelineateError):
    """The request cannot be carried out as it stands."""

    status = 422
    code = "invalid"


class Conflict(DelineateError):
    """The object's state forbids it, or has moved on."""

    status = 409
    code = "conflict"


class TooMany(DelineateError):
    """Asked too often."""

    status = 429
    code = "too_many"


class Unavailable(DelineateError):
    """A part of the system is away for the moment."""

    status = 503
    code = "unavailable"
