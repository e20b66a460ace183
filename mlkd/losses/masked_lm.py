"""The settings of the masked language model that may be trained beside the mix."""

from __future__ import annotations

from dataclasses import dataclass

from mlkd.errors import MlkdError, Problem


@dataclass(kw_only=True, slots=True)
class MaskedLanguageTerm:
    """Masked language modelling on the student's tokens, LASER3's third task (Heffernan et al. 2022).

    Cross-entropy, mean over the chosen tokens; of these 80% become the mask token, 10% a random one, 10% stay
    (Devlin et al. 2019, section 3.1).

    Args:
        mask_share: of the tokens that are chosen, in (0, 1).
    """

    mask_share: float = 0.15

    def __post_init__(self) -> None:
        if not 0 < self.mask_share < 1:
            raise MlkdError(Problem("E204", f"must be in (0, 1) (got {self.mask_share})", "mask_share"))
