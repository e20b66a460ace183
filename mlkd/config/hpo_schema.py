"""Settings of a hyper-parameter search: how many jobs, how many of them at random, and the seed."""

from __future__ import annotations

from dataclasses import dataclass

from mlkd.errors import MlkdError, out_of_range


@dataclass(kw_only=True, slots=True)
class HyperParameterSearch:
    """How a sweep over an interval is searched.

    Args:
        trials: jobs; more of them continue the search that is there.
        startup_trials: of them, drawn at random before the scores decide.
        seed: of what is drawn.

    Source:
        Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization" (TPE), as in Optuna.
    """

    trials: int = 20
    startup_trials: int = 8
    seed: int = 1

    def __post_init__(self) -> None:
        problems = [*out_of_range(self, "trials", "startup_trials", ge=1), *out_of_range(self, "seed", ge=0)]
        if problems:
            raise MlkdError(problems)
