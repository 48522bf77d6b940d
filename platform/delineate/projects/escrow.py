"""Escrow: identities are sealed for a key that is not here. Values only.

A project has a key pair (X25519). The server keeps the public half and seals with it (libsodium's
sealed box: a key of its own for each, so that not even the server can open what it sealed); the
private half is given away once, as a file, and comes back only with a request to re-identify.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final, Literal
from uuid import UUID

from nacl.exceptions import CryptoError
from nacl.public import PrivateKey, PublicKey, SealedBox
from pydantic import BaseModel, ConfigDict, ValidationError

from delineate.errors import Invalid

FILE_VERSION: Final = 1
FILE_AT_MOST_BYTES: Final = 4096


class EscrowFile(BaseModel):
    """What the lead keeps: the only way back to the identities."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    kind: Literal["delineate-escrow"] = "delineate-escrow"
    version: Literal[1] = FILE_VERSION
    project: UUID
    private_key: str  # 32 bytes in base64

    @property
    def file_name(self) -> str:
        """What the file is called where it is saved."""
        return f"delineate-escrow-{self.project}.json"

    @property
    def public_key(self) -> bytes:
        """The half that seals; Invalid ``escrow_unreadable``."""
        return bytes(_private_key(self).public_key)


def new_escrow(project_id: UUID) -> EscrowFile:
    """A new key pair."""
    private_key = base64.b64encode(bytes(PrivateKey.generate())).decode()
    return EscrowFile(project=project_id, private_key=private_key)


def read_escrow(text: str, *, project_id: UUID, public_key: bytes) -> EscrowFile:
    """A file as it was given away; Invalid ``escrow_unreadable`` or ``escrow_wrong_key``.

    Neither says anything of what was in it.
    """
    if len(text) > FILE_AT_MOST_BYTES:
        raise _unreadable()
    try:
        file = EscrowFile.model_validate_json(text)
    except ValidationError:
        raise _unreadable() from None
    if file.project != project_id or file.public_key != public_key:
        raise Invalid("This is not the escrow file of this project.", code="escrow_wrong_key")
    return file


def seal(data: bytes, *, public_key: bytes) -> bytes:
    """What only the private key opens."""
    return bytes(SealedBox(PublicKey(public_key)).encrypt(data))


def unseal(sealed: bytes, *, file: EscrowFile) -> bytes:
    """What was sealed; Invalid ``escrow_wrong_key``."""
    try:
        return bytes(SealedBox(_private_key(file)).decrypt(sealed))
    except CryptoError:
        raise Invalid(
            "This is not the escrow file of this project.", code="escrow_wrong_key"
        ) from None


def _private_key(file: EscrowFile) -> PrivateKey:
    try:
        return PrivateKey(base64.b64decode(file.private_key, validate=True))
    except (CryptoError, binascii.Error, ValueError):
        raise _unreadable() from None


def _unreadable() -> Invalid:
    return Invalid("The file is no escrow file of Delineate.", code="escrow_unreadable")
