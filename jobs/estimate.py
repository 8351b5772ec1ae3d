"""How long a plan will take and what it will cost, from the rates of earlier scans of the same table."""

from __future__ import annotations

from dataclasses import dataclass

from jobs import duck
from jobs.schema import SCANS
from jobs.table import ResultsTable
from jobs.units import rounded_size, rounded_time

_SCANS = 5
LEAST_VIDEOS = 20
"""A smaller scan measures the start of the cluster, not the work."""

_RATES = """
SELECT videos_per_s FROM scans
WHERE event = 'end' AND settings_id = $settings_id AND videos_per_s > 0
  AND list_sum(map_values(done)) >= $least
ORDER BY "at" DESC LIMIT $scans
"""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What there is to do, and within which bounds it will stay if this scan is like those before.

    Attributes:
        videos: To be scanned.
        size_bytes: Of them together.
        seconds: Least and most; None where no scan with these settings has been measured.
        cost: Least and most, in the currency of the price; None without a price or a measurement.
        scans: Behind the bounds.
    """

    videos: int
    size_bytes: int
    seconds: tuple[float, float] | None = None
    cost: tuple[float, float] | None = None
    scans: int = 0

    def in_words(self) -> str:
        """For people."""
        much = f"{self.videos:,} videos, {rounded_size(self.size_bytes)}"
        if self.seconds is None:
            return f"{much}; how long that takes has not been measured yet with these settings"
        low, high = self.seconds
        words = f"{much}: {rounded_time(low)} to {rounded_time(high)}"
        if self.cost is not None:
            words += f", {self.cost[0]:,.2f} to {self.cost[1]:,.2f} at your price"
        if self.scans == 1:
            return f"{words}, half to twice what the last scan took"
        return f"{words}, as the last {self.scans} scans went"


def estimate(
    table: ResultsTable | None, settings_id: str, videos: int, size_bytes: int, price_per_hour: float | None
) -> Estimate:
    """The estimate for so many videos of so many bytes.

    Args:
        table: Whose scans are looked at; None where there is none yet.
        settings_id: Of the scan: others have other rates.
        videos: To be scanned.
        size_bytes: Of them together.
        price_per_hour: Of the whole cluster.
    """
    rates = _rates(table, settings_id) if table is not None else []
    if not rates or not videos:
        return Estimate(videos, size_bytes)
    # One scan tells nothing of how much scans differ.
    spread = (0.5, 2.0) if len(rates) == 1 else (1.0, 1.0)
    low, high = videos / max(rates) * spread[0], videos / min(rates) * spread[1]
    cost = None if price_per_hour is None else (low / 3600 * price_per_hour, high / 3600 * price_per_hour)
    return Estimate(videos, size_bytes, (low, high), cost, len(rates))


def _rates(table: ResultsTable, settings_id: str) -> list[float]:
    with duck.connect() as connection:
        table.output.readable_by(connection)
        duck.register(connection, "scans", table.scans(), SCANS)
        values = {"settings_id": settings_id, "least": LEAST_VIDEOS, "scans": _SCANS}
        return [rate for (rate,) in connection.execute(_RATES, values).fetchall()]
