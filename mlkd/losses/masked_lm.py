"""Masked language modelling: the settings of the one term that is computed from tokens, not from vectors."""

from __future__ import annotations

from dataclasses import dataclass

from mlkd.errors import MlkdError, out_of_range

MASKED_LM = "masked_lm"  # its name among the terms


@dataclass(kw_only=True, slots=True)
class MaskedLmTerm:
    """Masked language modelling on the student's tokens, LASER3's third task (Heffernan et al. 2022).

    Cross-entropy, mean over the chosen tokens; of these 80% become the mask token, 10% a random one, 10% stay
    (Devlin et al. 2019, section 3.1).

    Args:
        mask_share: of the tokens that are chosen, in (0, 1).
    """

    mask_share: float = 0.15

    def __post_init__(self) -> None:
        problems = out_of_range(self, "mask_share", gt=0, lt=1)
        if problems:
            raise MlkdError(problems)
