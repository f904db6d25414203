#!/usr/bin/env python3
"""Checks that the store answers what a recorded file says, by recomputing every answer from the file.

Independent on purpose: Python's standard library only, no code of Tidemark. It reads the CSV (header
device,property,timestamp_ms,value), asks the `tidemark` command as a user would, and compares

  counts    points of each device and property, over the whole file
  hourly    count sum min max avg first last of every hour of every series
  ranges    every row of sampled days of each device
  latest    the newest value of each device and property

Integers, texts, times, and min, max, first, last and raw floats must be equal to the last bit; sum and avg of floats
within 1e-9 (relative). Windows of `gauge`, `state` and `event` are [start, end), those of `increment` and `mean`
(start, end].

    verify.py FILE.csv[.zst] --types TYPES.toml [--endpoint HOST:PORT] [--tidemark PROGRAM]

Exit code: 0 equal, 1 differences, 2 could not check. Needs Python 3.11; for .zst also the `zstd` program, the
`zstandard` package or Python 3.14.
"""

import argparse
import contextlib
import csv
import io
import math
import os
import random
import shutil
import struct
import subprocess
import sys
import tomllib

HOUR_NS = 3_600_000_000_000
DAY_NS = 24 * HOUR_NS
CHUNK_NS = 400 * DAY_NS  # one aggregate query spans at most this
NUMERIC = ("f64", "i64")
FUNCTIONS = {True: ["count", "sum", "min", "max", "avg", "first", "last"], False: ["count", "first", "last"]}
TOLERANCE = 1e-9
SHOWN = 10


class CannotCheck(Exception):
    """Something other than the stored data stands in the way."""


# --- the file -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def open_text(path):
    """The file as text, decompressed where its name ends in .zst."""
    if not path.endswith(".zst"):
        with open(path, newline="", encoding="utf-8") as file:
            yield file
    elif shutil.which("zstd"):
        with subprocess.Popen(["zstd", "-dcq", path], stdout=subprocess.PIPE) as process:
            yield io.TextIOWrapper(process.stdout, newline="", encoding="utf-8")
            process.stdout.read()
            if process.wait() != 0:
                raise CannotCheck(f"zstd cannot read {path}")
    else:
        try:
            from compression import zstd  # Python 3.14
        except ImportError:
            try:
                import zstandard as zstd
            except ImportError:
                raise CannotCheck("reading .zst needs the zstd program (Debian package zstd)") from None
        with zstd.open(path, "rt", newline="", encoding="utf-8") as file:
            yield file


def typed(text, value_type):
    """A text of the file or of an answer as a value of the property."""
    if value_type == "f64":
        return float(text)
    if value_type == "i64":
        return int(text)
    if value_type == "bool":
        return {"true": True, "false": False}[text]
    return text


def load(path, properties):
    """{(device, property): [(time in ns, value), …]}, in order of time; of equal times the last row counts."""
    series = {}
    with open_text(path) as file:
        reader = csv.reader(file)
        header = next(reader, [])
        if header != ["device", "property", "timestamp_ms", "value"]:
            raise CannotCheck(f"{path}: unexpected header {header}")
        for device, name, at_ms, text in reader:
            if name not in properties:
                raise CannotCheck(f"{path}: the type has no property {name}")
            value = typed(text, properties[name]["value_type"])
            series.setdefault((device, name), {})[int(at_ms) * 1_000_000] = value
    return {key: sorted(points.items()) for key, points in series.items()}


# --- what must come back --------------------------------------------------------------------------------------------


def window_start(at_ns, kind):
    """Start of the hour a point falls into."""
    if kind in ("increment", "mean"):
        return -(-at_ns // HOUR_NS) * HOUR_NS - HOUR_NS
    return at_ns // HOUR_NS * HOUR_NS


def hours(points, kind):
    """{start of an hour: values in order of time}."""
    windows = {}
    for at_ns, value in points:
        windows.setdefault(window_start(at_ns, kind), []).append(value)
    return windows


def aggregate(name, values):
    """One function over the values of a window, exactly rounded."""
    whole = all(isinstance(value, int) for value in values)
    if name == "count":
        return len(values)
    if name == "sum":
        return sum(values) if whole else math.fsum(values)
    if name == "avg":
        return (sum(values) if whole else math.fsum(values)) / len(values)
    if name == "first":
        return values[0]
    if name == "last":
        return values[-1]
    return min(values) if name == "min" else max(values)


def equal(expected, text, value_type, name="", values=()):
    """Whether the text of an answer is the expected value: to the last bit, or within the tolerance for avg and sum."""
    try:
        if name == "count":
            return int(text) == expected
        if name == "avg" or (name == "sum" and value_type == "f64"):
            got = float(text)
            # what nearly cancels out is judged by the size of what was added
            added = math.fsum(abs(value) for value in values) / (len(values) or 1 if name == "avg" else 1)
            size = max(abs(expected), added * 1e-3)
            return got == expected or abs(got - expected) <= TOLERANCE * size
        got = typed(text, value_type)
    except (ValueError, KeyError):
        return False
    if value_type == "f64":
        return struct.pack("<d", got) == struct.pack("<d", expected)
    return got == expected


# --- the store ------------------------------------------------------------------------------------------------------


class Store:
    """Questions to the store through its command line."""

    def __init__(self, program, endpoint):
        self.program = program
        self.endpoint = ["--endpoint", endpoint] if endpoint else []

    def ask(self, *words):
        """Rows of an answer, as dictionaries."""
        command = [self.program, *self.endpoint, "-o", "csv", "--ts-format", "ns", "query", *words]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8") as process:
            yield from csv.DictReader(process.stdout)
            if process.wait() != 0:
                raise CannotCheck(f"exit code {process.returncode} from: {' '.join(command)}")

    def aggregates(self, device, properties, functions, from_ns, to_ns, every=None):
        words = ["agg", "--device", device, "--property", ",".join(properties), "--fn", ",".join(functions)]
        words += ["--from", f"{from_ns}ns", "--to", f"{to_ns}ns", "--allow-unlawful"]
        return self.ask(*words, *(["--every", every] if every else []))

    def rows(self, device, from_ns, to_ns):
        return self.ask("range", "--device", device, "--from", f"{from_ns}ns", "--to", f"{to_ns}ns", "--long")

    def latest(self, device):
        return self.ask("latest", "--device", device)


# --- the comparison -------------------------------------------------------------------------------------------------


class Findings:
    """Counts what was compared and what differed, and shows the first differences."""

    def __init__(self):
        self.compared = {}
        self.different = {}

    def check(self, topic, good, describe):
        self.compared[topic] = self.compared.get(topic, 0) + 1
        if good:
            return
        seen = self.different[topic] = self.different.get(topic, 0) + 1
        if seen <= SHOWN:
            print(f"  {topic}: {describe()}")

    def summary(self):
        parts = []
        for topic, number in self.compared.items():
            wrong = self.different.get(topic, 0)
            parts.append(f"{topic} {number:,}" + (f" ({wrong:,} DIFFERENT)" if wrong else ""))
        return ", ".join(parts)


def span(series):
    """Whole hours around every point, with room for windows that end at a point."""
    first = min(points[0][0] for points in series.values())
    last = max(points[-1][0] for points in series.values())
    return first // HOUR_NS * HOUR_NS - HOUR_NS, (last // HOUR_NS + 2) * HOUR_NS


def check_counts(store, device, mine, properties, found):
    from_ns, to_ns = span(mine)
    rows = store.aggregates(device, [name for _, name in mine], ["count"], from_ns, to_ns)
    got = {row["property"]: row["count"] for row in rows}
    for (_, name), points in mine.items():
        text = got.pop(name, "0")
        found.check("counts", equal(len(points), text, "i64", "count"),
                    lambda: f"{device} {name}: {text} points, the file has {len(points)}")
    for name, text in got.items():
        found.check("counts", int(text) == 0, lambda: f"{device} {name}: {text} points, the file has none")


def check_hours(store, device, mine, properties, found):
    from_ns, to_ns = span(mine)
    for numeric, functions in FUNCTIONS.items():
        names = [name for _, name in mine if (properties[name]["value_type"] in NUMERIC) == numeric]
        if not names:
            continue
        expected = {name: hours(mine[device, name], properties[name]["kind"]) for name in names}
        for start_ns in range(from_ns, to_ns, CHUNK_NS):
            end_ns = min(start_ns + CHUNK_NS, to_ns)
            for row in store.aggregates(device, names, functions, start_ns, end_ns, "1h"):
                check_hour(device, row, expected, functions, properties, found)
        for name, windows in expected.items():
            for start in windows:
                found.check("hourly", False, lambda: f"{device} {name}: the hour from {start} is missing")


def check_hour(device, row, expected, functions, properties, found):
    name, start = row["property"], int(row["start"])
    values = expected[name].pop(start, None)
    if values is None:
        found.check("hourly", False, lambda: f"{device} {name}: an hour from {start} that the file has not")
        return
    found.check("hourly", int(row["end"]) == start + HOUR_NS, lambda: f"{device} {name} {start}: ends at {row['end']}")
    value_type = properties[name]["value_type"]
    for function in functions:
        wanted = aggregate(function, values)
        found.check("hourly", equal(wanted, row[function], value_type, function, values if value_type == "f64" else ()),
                    lambda: f"{device} {name} {start} {function}: {row[function]}, the file says {wanted!r}")


def check_ranges(store, device, mine, properties, found, days, seed):
    all_days = sorted({at_ns // DAY_NS for points in mine.values() for at_ns, _ in points})
    # the first and the last day always, the others by lot
    chosen = {all_days[0], all_days[-1], *random.Random(f"{seed} {device}").sample(all_days, min(days, len(all_days)))}
    by_day = {day: {} for day in chosen}
    for (_, name), points in mine.items():
        for at_ns, value in points:
            if at_ns // DAY_NS in chosen:
                by_day[at_ns // DAY_NS][name, at_ns] = value
    for day, expected in by_day.items():
        for row in store.rows(device, day * DAY_NS, (day + 1) * DAY_NS):
            name, at_ns = row["property"], int(row["timestamp"])
            wanted = expected.pop((name, at_ns), None)
            good = row["device"] == device and wanted is not None
            found.check("ranges", good and equal(wanted, row["value"], properties[name]["value_type"]),
                        lambda: f"{device} {name} at {at_ns}: {row['value']}, the file says {wanted!r}")
        for (name, at_ns), wanted in expected.items():
            found.check("ranges", False, lambda: f"{device} {name} at {at_ns}: missing, the file says {wanted!r}")


def check_latest(store, device, mine, properties, found):
    got = {row["property"]: row for row in store.latest(device) if row["property"]}
    for (_, name), points in mine.items():
        at_ns, value = points[-1]
        row = got.pop(name, None)
        good = row is not None and int(row["timestamp"]) == at_ns
        found.check("latest", good and equal(value, row["value"], properties[name]["value_type"]),
                    lambda: f"{device} {name}: {row and (row['timestamp'], row['value'])}, the file says {at_ns, value}")
    for name in got:
        found.check("latest", False, lambda: f"{device} {name}: a value that the file has not")


def verify(args):
    """Compares one file; the findings."""
    with open(args.types, "rb") as file:
        types = tomllib.load(file)["device_type"]
    wanted = args.type or os.path.basename(args.file).split(".")[0]
    chosen = [t for t in types if t["id"] == wanted]
    if not chosen:
        raise CannotCheck(f"{args.types} has no type {wanted}; name one with --type")
    properties = {p["id"]: p for p in chosen[0]["properties"]}
    series = load(args.file, properties)
    store, found = Store(args.tidemark, args.endpoint), Findings()
    devices = {}
    for key, points in series.items():
        devices.setdefault(key[0], {})[key] = points
    for device, mine in devices.items():
        check_counts(store, device, mine, properties, found)
        check_hours(store, device, mine, properties, found)
        check_ranges(store, device, mine, properties, found, args.days, args.seed)
        check_latest(store, device, mine, properties, found)
    points = sum(len(points) for points in series.values())
    print(f"  {points:,} points of {len(devices)} devices, {len(series)} series; compared: {found.summary()}")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="recorded series, CSV, plain or .zst")
    parser.add_argument("--types", required=True, help="TOML file with the device type")
    parser.add_argument("--type", help="device type; by default the name of the file up to its first dot")
    parser.add_argument("--endpoint", help="node to ask, host:port; by default what the tidemark command takes")
    parser.add_argument("--tidemark", default="tidemark", help="the tidemark command")
    parser.add_argument("--days", type=int, default=5, help="days sampled per device, beside the first and the last")
    parser.add_argument("--seed", type=int, default=1, help="chooses the sampled days")
    args = parser.parse_args()
    print(f"{os.path.basename(args.file)} (seed {args.seed})", flush=True)
    try:
        found = verify(args)
    except (CannotCheck, OSError, ValueError) as error:
        print(f"  cannot check: {error}", file=sys.stderr)
        return 2
    print("  DIFFERENT" if found.different else "  OK", flush=True)
    return 1 if found.different else 0


if __name__ == "__main__":
    sys.exit(main())
