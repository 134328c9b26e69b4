"""A histogram without locks, as there is only one thread."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

from prometheus_client.metrics_core import HistogramMetricFamily
from prometheus_client.utils import floatToGoString


class Histogram:
    """Counts values by the buckets they fall into."""

    def __init__(self, bounds: Sequence[float]) -> None:
        """Start without values.

        Args:
            bounds: the upper bound of each bucket, ascending; one more bucket is for greater values.
        """
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    @property
    def count(self) -> int:
        """The number of values."""
        return sum(self._counts)

    def observe(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def add_to(self, family: HistogramMetricFamily, labels: Sequence[str] = ()) -> None:
        """Add the histogram to a metric."""
        names = (*map(floatToGoString, self._bounds), "+Inf")
        family.add_metric(labels, list(zip(names, accumulate(self._counts), strict=True)), self._sum)
