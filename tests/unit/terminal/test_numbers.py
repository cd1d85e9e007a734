"""Numbers for people."""

from __future__ import annotations

from crochet_tasks.terminal import numbers


def test_counts_have_groups_and_their_thing() -> None:
    assert [numbers.count(7), numbers.count(1234567)] == ["7", "1,234,567"]
    assert [numbers.counted(1, "text"), numbers.counted(2000, "text"), numbers.counted(2, "process", "processes")] == [
        "1 text",
        "2,000 texts",
        "2 processes",
    ]


def test_rates_have_no_more_digits_than_anyone_reads() -> None:
    assert [numbers.rate(each) for each in (47_442.2, 9488.0, 10.0, 9.5, 0.123, 0.0, None)] == [
        "47,442", "9,488", "10", "9.50", "0.12", "0", "unknown",
    ]  # fmt: skip


def test_only_nothing_and_all_are_rounded_to_the_ends() -> None:
    assert [numbers.share(each) for each in (0.0, 0.001, 0.25, 0.9999, 1.0, None)] == [
        "0 %", "<1 %", "25 %", ">99 %", "100 %", "unknown",
    ]  # fmt: skip


def test_times_change_their_unit() -> None:
    assert [numbers.seconds(each) for each in (0.44, 9.94, 9.96, 119, 120, 7199, 7200, 170_000, 172_800)] == [
        "0.4 s", "9.9 s", "10 s", "119 s", "2 min", "120 min", "2.0 h", "47.2 h", "2 d",
    ]  # fmt: skip


def test_sizes_change_their_unit() -> None:
    sizes = [0, 999, 1000, 123_456, 8_400_000, 2_000_000_000_000]
    assert [numbers.size(each) for each in sizes] == [
        "0 bytes", "999 bytes", "1.0 kB", "123 kB", "8.4 MB", "2,000.0 GB",
    ]  # fmt: skip


def test_estimates_have_two_digits() -> None:
    numbers_ = [0.4, 7, 86.2, 4321, 99_499, 999_999, 9_960_000, 1_741_329_068, 3.2e13]
    assert [numbers.about(each) for each in numbers_] == [
        "0", "7", "86", "4,300", "99,000", "1.0 million", "10 million", "1.7 billion", "32 trillion",
    ]  # fmt: skip


def test_an_interval_names_its_unit_once() -> None:
    ends = [(1.5e9, 2e9), (9e8, 1.1e9), (86, 4321)]
    assert [numbers.between(*each) for each in ends] == [
        "1.5 to 2.0 billion",
        "900 million to 1.1 billion",
        "86 to 4,300",
    ]
