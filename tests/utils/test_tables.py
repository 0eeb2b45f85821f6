"""Tables as text."""

from __future__ import annotations

from coordconv_apps.utils.tables import beside_real_data, table


def test_table_aligns_its_columns() -> None:
    assert table([("a", 1.0), ("long name", 0.123456789), ("c", "text")]).splitlines() == [
        "  a          1",
        "  long name  0.12346",
        "  c          text",
    ]
    assert table([]) == ""


def test_table_aligns_rows_of_different_lengths() -> None:
    rows = [("", "", "third"), ("a", 0.5), ("long name", 12.0, 0.25), ("b", "much longer text"), ("c",)]
    assert table(rows).splitlines() == [
        "                 third",
        "  a          0.5",
        "  long name  12  0.25",
        "  b          much longer text",
        "  c",
    ]


def test_values_of_real_data_stand_beside_their_metrics() -> None:
    metrics = {
        "test/b": 2.0,
        "test/floor/b": 0.2,
        "test/a": 1.0,
        "test/red/a": 3.0,
        "test/floor/red/a": 0.3,
        "test/floor/lonely": 9.0,
        "val/b": 4.0,
        "seconds": 5.0,
        "test/flooring": 6.0,
    }
    assert beside_real_data(metrics) == [
        ("test/b", 2.0, 0.2),
        ("test/a", 1.0, None),
        ("test/red/a", 3.0, 0.3),
        ("test/floor/lonely", 9.0, None),
        ("val/b", 4.0, None),
        ("seconds", 5.0, None),
        ("test/flooring", 6.0, None),
    ]
    assert beside_real_data({}) == []
