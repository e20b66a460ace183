"""Earlier results side by side, as far as their numbers compare."""

from __future__ import annotations

from mlkd.config.evaluate_schema import EvaluateConfig
from mlkd.errors import MlkdError
from mlkd.report.merging import merge_results
from mlkd.report.results import Results, read_results
from mlkd.tasks.base import collect_problems


def compare(config: EvaluateConfig) -> Results:
    """Earlier results side by side.

    Raises:
        MlkdError: E301, E309 for a file; E322 where numbers of the files cannot be compared.
    """
    found, errors = {}, []
    for path in config.compared_files:
        try:
            found[path] = read_results(path, with_item_scores=True)
        except MlkdError as error:
            errors.append(error)
    collect_problems(errors)
    if len({results.mlkd for results in found.values()}) > 1:
        print("scored by", ", ".join(f"mlkd {results.mlkd} ({path})" for path, results in found.items()))
    merged = merge_results(found, allow_partial=config.allow_partial, num_resamples=config.num_resamples)
    for reason in merged.reasons:
        print(f"left out: {reason}")
    if merged.reasons:
        print(f"left out: {merged.num_left_out:,} numbers that are not in all files, or not alike\n")
    return merged.results
