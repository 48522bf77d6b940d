"""Many images with a prompt each, against segment-anything's decoder, which takes one image."""

from __future__ import annotations

import torch

from mlworker.model import sam_med2d
from mlworker.model.decode import decode


def test_rows_equal_the_decoder_that_takes_one_image() -> None:
    torch.manual_seed(0)
    decoder = sam_med2d.build_mask_decoder()
    embeddings, dense = torch.randn(2, 3, 256, 16, 16)
    positions = torch.randn(1, 256, 16, 16)
    sparse = torch.randn(3, 2, 256)

    with torch.no_grad():
        logits, ious = decode(
            decoder, embeddings=embeddings, positions=positions, sparse=sparse, dense=dense
        )
        for row in range(3):
            for multimask, kinds in ((False, slice(0, 1)), (True, slice(1, None))):
                expected_logits, expected_ious = decoder(
                    image_embeddings=embeddings[row, None],
                    image_pe=positions,
                    sparse_prompt_embeddings=sparse[row, None],
                    dense_prompt_embeddings=dense[row, None],
                    multimask_output=multimask,
                )
                torch.testing.assert_close(logits[row, kinds], expected_logits[0])
                torch.testing.assert_close(ious[row, kinds], expected_ious[0])
