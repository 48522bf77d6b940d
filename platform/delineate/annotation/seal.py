"""The server's seal on a proposal: proof, without a row, that the model made this mask here."""

from __future__ import annotations

import hashlib
from typing import Final
from uuid import UUID

from django.core.signing import BadSignature, Signer

from delineate.annotation.drafts import SealedProposal
from delineate.errors import Invalid

_SALT: Final = "delineate.annotation.proposal"


def seal(proposal: SealedProposal, *, slice_id: UUID, label_id: UUID) -> SealedProposal:
    """The proposal with its seal; whatever seal it had does not matter."""
    return proposal.model_copy(
        update={"seal": _signer().signature(_content(proposal, slice_id, label_id))}
    )


def check(proposal: SealedProposal, *, slice_id: UUID, label_id: UUID) -> None:
    """Invalid ``seal_broken`` unless the server proposed exactly this for this slice and label."""
    try:
        _signer().unsign(f"{_content(proposal, slice_id, label_id)}:{proposal.seal}")
    except BadSignature as error:
        raise Invalid(
            "The proposal is not one that the model made for this slice and label.",
            code="seal_broken",
        ) from error


def _signer() -> Signer:
    return Signer(salt=_SALT)


def _content(proposal: SealedProposal, slice_id: UUID, label_id: UUID) -> str:
    content = proposal.model_dump_json(exclude={"seal"})
    return hashlib.sha256(f"{slice_id}{label_id}{content}".encode()).hexdigest()
