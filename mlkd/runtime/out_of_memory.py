"""Out of device memory: give less to one forward pass and try again."""

from __future__ import annotations

import gc
import logging

import torch

from mlkd.errors import fail

log = logging.getLogger("mlkd")


def release_device_memory() -> None:
    """Free what a failed attempt left behind: tensors in reference cycles, and blocks that the allocator keeps.

    To be called when the exception is no longer handled: its traceback holds the tensors of the attempt.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def fewer_tokens(max_tokens: int, longest: int, what: str) -> int:
    """Half of `max_tokens`, after an allocation failed with it.

    Args:
        max_tokens: token positions in one forward pass so far.
        longest: tokens of the longest sentence; a pass holds at least that one.
        what: was being done, for messages.

    Raises:
        MlkdError: E520 where one sentence at a time was too much already.
    """
    if max_tokens <= longest:
        raise fail(
            "E520",
            f"out of device memory in {what}, with one sentence in a forward pass",
            remedy="lower optim.batch_size or student.max_length, or free the device of other programs",
        )
    fewer = max(longest, max_tokens // 2)
    log.warning(
        "out of device memory in %s: retried with %s token positions in a forward pass instead of %s",
        what,
        f"{fewer:,}",
        f"{max_tokens:,}",
    )
    return fewer
