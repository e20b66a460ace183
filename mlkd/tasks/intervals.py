"""95 % intervals of the two statistics that small test sets are scored with."""

from __future__ import annotations

import math

_Z = 1.959963984540054


def wilson_interval(percent: float, count: int) -> list[float]:
    """Interval of an accuracy in percent over `count` items.

    Source:
        Wilson 1927, "Probable inference, the law of succession, and statistical inference".

    >>> [round(bound, 1) for bound in wilson_interval(50.0, 100)]
    [40.4, 59.6]
    """
    share = percent / 100
    centre = (share + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
    half = _Z / (1 + _Z**2 / count) * math.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2))
    return [100 * max(0.0, centre - half), 100 * min(1.0, centre + half)]


def spearman_interval(percent: float, count: int) -> list[float] | None:
    """Interval of 100 x Spearman over `count` items; None where there are too few.

    Source:
        Bonett & Wright 2000, "Sample size requirements for estimating Pearson, Kendall and Spearman correlations".

    >>> [round(bound, 1) for bound in spearman_interval(80.0, 250)]
    [74.2, 84.6]
    """
    if count <= 3:
        return None
    # At |rho| = 1 the transform is infinite and the interval a point.
    if abs(percent) >= 100:
        return [percent, percent]
    rho = percent / 100
    half = _Z * math.sqrt((1 + rho**2 / 2) / (count - 3))
    return [100 * math.tanh(math.atanh(rho) - half), 100 * math.tanh(math.atanh(rho) + half)]
