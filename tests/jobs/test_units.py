import pytest

from jobs.units import format_duration, format_percent, format_size, parse_duration, parse_percent, parse_size


@pytest.mark.parametrize(
    ("text", "seconds", "written"),
    [
        ("30s", 30, "30s"),
        ("2m", 120, "2m"),
        ("1.5h", 5400, "90m"),
        ("48h", 172_800, "48h"),
        (" 90 s ", 90, "90s"),
        (30, 30, "30s"),
        (0.1, 0.1, "0.1s"),
        ("45", 45, "45s"),
    ],
)
def test_durations(text: object, seconds: float, written: str) -> None:
    assert parse_duration(text) == seconds
    assert format_duration(seconds) == written


@pytest.mark.parametrize(
    ("text", "size", "written"),
    [
        ("5GB", 5 * 10**9, "5GB"),
        ("1.5 gb", 1_500_000_000, "1500MB"),
        ("4GiB", 4 << 30, "4GiB"),
        ("123", 123, 123),
        (123, 123, 123),
        (1024, 1024, "1KiB"),
    ],
)
def test_sizes(text: object, size: int, written: object) -> None:
    assert parse_size(text) == size
    assert format_size(size) == written


@pytest.mark.parametrize(
    ("text", "share", "written"),
    [("5%", 0.05, "5%"), ("0.1 %", 0.001, "0.1%"), ("100%", 1, "100%"), ("0%", 0, "0%")],
)
def test_percentages(text: object, share: float, written: str) -> None:
    assert parse_percent(text) == share
    assert format_percent(share) == written


@pytest.mark.parametrize(
    "value", ["", "s", "-5s", "1e3s", "5 GBs", "1,5h", True, None, [], float("inf"), "\u0665s"]
)
def test_anything_else_is_refused(value: object) -> None:
    for parse in (parse_duration, parse_size, parse_percent):
        with pytest.raises(ValueError, match=" is not a"):
            parse(value)
