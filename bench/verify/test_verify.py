"""Tests of verify.py against a store that is a dictionary: equal answers pass, every kind of error is found.

    python3 -m unittest discover bench/verify
"""

import contextlib
import io
import sys
import unittest

sys.dont_write_bytecode = True
import verify  # noqa: E402

HOUR = verify.HOUR_NS
PROPERTIES = {
    "level": {"value_type": "f64", "kind": "gauge"},
    "rain": {"value_type": "i64", "kind": "increment"},
    "state": {"value_type": "enum", "kind": "state"},
}
MINE = {
    ("a", "level"): [(10 * HOUR, 0.1), (10 * HOUR + 5, 0.2), (11 * HOUR, -0.3), (40 * HOUR, 1e300)],
    ("a", "rain"): [(10 * HOUR, 1), (10 * HOUR + 5, 2), (11 * HOUR, 3)],
    ("a", "state"): [(10 * HOUR, "on"), (41 * HOUR, "off")],
}


class Dictionary:
    """Answers like the store, from points it is given."""

    def __init__(self, series):
        self.series = series

    def aggregates(self, device, properties, functions, from_ns, to_ns, every=None):
        for name in properties:
            kind, windows = PROPERTIES[name]["kind"], {}
            for at_ns, value in self.series.get((device, name), []):
                start = from_ns
                if every:
                    start = (at_ns - 1 if kind == "increment" else at_ns) // HOUR * HOUR
                windows.setdefault(start, []).append(value)
            for start, values in sorted(windows.items()):
                if from_ns <= start < to_ns:
                    row = {"property": name, "start": str(start), "end": str(start + HOUR if every else to_ns)}
                    row.update((f, self.text(verify.aggregate(f, values))) for f in functions)
                    yield row

    def rows(self, device, from_ns, to_ns):
        for (of, name), points in self.series.items():
            for at_ns, value in points:
                if of == device and from_ns <= at_ns < to_ns:
                    yield {"device": of, "property": name, "timestamp": str(at_ns), "value": self.text(value)}

    def latest(self, device):
        for (of, name), points in self.series.items():
            if of == device and points:
                yield {"property": name, "timestamp": str(points[-1][0]), "value": self.text(points[-1][1])}

    @staticmethod
    def text(value):
        return value if isinstance(value, str) else repr(value)


def different(changed):
    """Topics in which a store with changed points differs from the file."""
    store, found = Dictionary({**MINE, **changed}), verify.Findings()
    with contextlib.redirect_stdout(io.StringIO()):
        verify.check_counts(store, "a", MINE, PROPERTIES, found)
        verify.check_hours(store, "a", MINE, PROPERTIES, found)
        verify.check_ranges(store, "a", MINE, PROPERTIES, found, 2, 1)
        verify.check_latest(store, "a", MINE, PROPERTIES, found)
    return sorted(found.different)


class Verify(unittest.TestCase):
    def test_an_equal_store_passes(self):
        self.assertEqual(different({}), [])

    def test_a_lost_point_is_found(self):
        self.assertEqual(different({("a", "rain"): MINE["a", "rain"][1:]}), ["counts", "hourly", "ranges"])

    def test_a_lost_newest_point_is_found(self):
        self.assertEqual(different({("a", "rain"): MINE["a", "rain"][:2]}), ["counts", "hourly", "latest", "ranges"])

    def test_one_bit_is_found(self):
        points = [(at, 0.30000000000000004 if value == -0.3 else value) for at, value in MINE["a", "level"]]
        self.assertEqual(different({("a", "level"): points}), ["hourly", "ranges"])
        self.assertFalse(verify.equal(0.3, "0.30000000000000004", "f64"))
        self.assertFalse(verify.equal(0.0, "-0.0", "f64"))

    def test_another_label_is_found(self):
        self.assertEqual(different({("a", "state"): [(10 * HOUR, "on"), (41 * HOUR, "on")]}), ["hourly", "latest", "ranges"])

    def test_a_point_too_many_is_found(self):
        points = [*MINE["a", "rain"], (12 * HOUR, 0)]
        self.assertEqual(different({("a", "rain"): points}), ["counts", "hourly", "latest", "ranges"])

    def test_windows_end_where_their_kind_says(self):
        self.assertEqual(verify.window_start(11 * HOUR, "gauge"), 11 * HOUR)
        self.assertEqual(verify.window_start(11 * HOUR, "increment"), 10 * HOUR)
        self.assertEqual(verify.window_start(11 * HOUR + 1, "mean"), 11 * HOUR)

    def test_sums_within_the_tolerance_and_not_beyond(self):
        self.assertTrue(verify.equal(100.0, "100.00000001", "f64", "sum", [50.0, 50.0]))
        self.assertFalse(verify.equal(100.0, "100.000001", "f64", "sum", [50.0, 50.0]))
        self.assertFalse(verify.equal(7, "7.0", "i64", "sum", [3, 4]))


if __name__ == "__main__":
    unittest.main()
