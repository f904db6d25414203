#!/usr/bin/env python3
"""Bytes a point on disk of every recorded file, in Tidemark and in VictoriaMetrics: each file in a store of its own, and all of
them in one.

    sizes.py FOLDER [--bin DIR] [--work DIR] [--json FILE] [--shards N] [--alone]

One node of Tidemark takes each file with `tidemark ingest`; its table files (times, receipt times, keys, statistics,
filters, indexes, the newest values and the registry of devices: everything but the Raft log, which has a bound of its own)
are counted after a clean stop, which flushes and merges nothing, and after `tidemark shard compact --all`. VictoriaMetrics
takes the numbers of the same file by its import, is flushed and merged by request, and all of its data folder is counted;
what is not a number it cannot keep, so it has fewer points where a file has texts. Needs Python 3.11, `zstd`, and
victoria-metrics on the path (bench/peers.sh) unless --alone is given.
"""

import argparse
import csv
import json
import math
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request

TYPES = pathlib.Path(__file__).parent / "datasets"
CLIENTS, PEERS, VICTORIA = 24_701, 24_702, 24_703
POST_BYTES = 4 << 20
PATIENCE_S = 120


def until(what, look):
    """Waits until `look` gives something that is true."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.1)
    raise SystemExit(f"{what}: not within {PATIENCE_S} s")


def rows(path):
    """Rows of a recorded file: device, property, milliseconds, value."""
    command = ["zstd", "-dcq", path] if path.suffix == ".zst" else ["cat", path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        lines = csv.reader(process.stdout)
        next(lines)
        yield from lines


def folder_bytes(folder, suffix=""):
    """Length of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*" + suffix) if path.is_file())


class Tidemark:
    """One node with data of its own."""

    def __init__(self, programs, folder, shards):
        self.programs, self.folder, self.shards, self.process = programs, folder, shards, None

    def start(self):
        command = [self.programs / "tidemarkd", "--data-dir", self.folder / "data", "--listen", f"127.0.0.1:{CLIENTS}"]
        log = open(self.folder / "log", "ab")
        self.process = subprocess.Popen([*command, "--peer-listen", f"127.0.0.1:{PEERS}"], stdout=log, stderr=log)

    def stop(self):
        self.process.terminate()
        self.process.wait(PATIENCE_S)

    def run(self, *arguments):
        command = [self.programs / "tidemark", "-e", f"127.0.0.1:{CLIENTS}", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def must(self, *arguments):
        done = self.run(*arguments)
        if done.returncode:
            raise SystemExit(f"tidemark {arguments}: {done.stderr}")
        return done.stdout

    def tables(self):
        return folder_bytes(self.folder / "data", ".sst") - folder_bytes(self.folder / "data" / "log", ".sst")

    def measure(self, files):
        """Bytes once flushed, and once compacted."""
        self.start()
        until("tidemark answers", lambda: self.run("cluster", "init", *self.shards).returncode == 0)
        until("tidemark is healthy", lambda: self.run("cluster", "status", "--check").returncode == 0)
        for name, path in files.items():
            self.must("type", "apply", TYPES / f"{name}.toml")
            state = ["--state", self.folder / f"{name}.progress", "--rejects", self.folder / f"{name}.rejects"]
            self.must("ingest", path, "--type", name, "--register", *state)
        self.stop()
        flushed = self.tables()
        self.start()
        until("tidemark is healthy", lambda: self.run("cluster", "status", "--check").returncode == 0)
        self.must("shard", "compact", "--all")
        self.stop()
        return {"flushed": flushed, "compacted": self.tables(), "log": folder_bytes(self.folder / "data" / "log")}


class Victoria:
    """One victoria-metrics with data of its own."""

    def __init__(self, folder):
        self.folder = folder

    def call(self, path, body=None):
        with urllib.request.urlopen(f"http://127.0.0.1:{VICTORIA}{path}", body, PATIENCE_S) as answer:
            return answer.read()

    def answers(self):
        try:
            return self.call("/health") or True
        except OSError:
            return False

    def put(self, name, path):
        """Imports the numbers of a file; how many there were."""
        points, lines, held = 0, [], 0
        for device, of, at_ms, value in rows(path):
            try:
                number = float(value)
            except ValueError:
                continue
            if not math.isfinite(number):
                continue
            lines.append(f'{name}_{of}{{device="{device}"}} {value} {at_ms}\n')
            points, held = points + 1, held + len(lines[-1])
            if held > POST_BYTES:
                self.call("/api/v1/import/prometheus", "".join(lines).encode())
                lines, held = [], 0
        self.call("/api/v1/import/prometheus", "".join(lines).encode())
        return points

    def measure(self, files):
        """Points and bytes once merged, with the index and without."""
        data = self.folder / "data"
        command = ["victoria-metrics", f"-storageDataPath={data}", f"-httpListenAddr=127.0.0.1:{VICTORIA}"]
        log = open(self.folder / "log", "ab")
        process = subprocess.Popen([*command, "-retentionPeriod=100y"], stdout=log, stderr=log)
        until("victoria-metrics answers", self.answers)
        points = sum(self.put(name, path) for name, path in files.items())
        self.call("/internal/force_flush")
        self.call("/internal/force_merge")
        time.sleep(5)
        process.send_signal(2)
        process.wait(PATIENCE_S)
        return {"points": points, "data": folder_bytes(data / "data"), "all": folder_bytes(data)}


def measure(label, files, arguments, work):
    """Figures of some files in one store."""
    print(f"  {label}", file=sys.stderr)
    figures = {"file": label, "points": sum(1 for path in files.values() for _ in rows(path))}
    shards = ["--shards", arguments.shards] if arguments.shards else []
    for store, make in {"tidemark": lambda at: Tidemark(arguments.bin, at, shards), "victoria": Victoria}.items():
        if store == "victoria" and arguments.alone:
            continue
        folder = work / f"{label}-{store}"
        folder.mkdir()
        figures[store] = make(folder).measure(files)
        shutil.rmtree(folder)
    return figures


def report(found):
    """The table, and what all files give together."""
    print("| file | points | flushed | compacted | VictoriaMetrics, data | … with index | compacted / VictoriaMetrics |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    ratios = []
    for one in found:  # the last row is that of all files together
        points, own = one["points"], one["tidemark"]
        cells = [one["file"], f"{points:,}", *(f"{own[key] / points:.3f}" for key in ("flushed", "compacted"))]
        if peer := one.get("victoria"):
            per_point = [peer[key] / peer["points"] for key in ("data", "all")]
            ratios.append(own["compacted"] / points / per_point[1])
            cells += [*(f"{value:.3f}" for value in per_point), f"{ratios[-1]:.2f}"]
        print("| " + " | ".join(cells) + " |")
    if ratios := ratios[:-1]:
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        print(f"\ncompacted / VictoriaMetrics with its index: {mean:.2f} in geometric mean")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--bin", type=pathlib.Path, default=pathlib.Path(os.environ.get("CARGO_TARGET_DIR", "target")) / "release")
    parser.add_argument("--work", type=pathlib.Path, help="folder for data; default: a temporary one")
    parser.add_argument("--json", type=pathlib.Path, help="writes the figures here, too")
    parser.add_argument("--shards", type=int, help="shards of each store, 2 to 64; default: the store's own choice")
    parser.add_argument("--alone", action="store_true", help="Tidemark only")
    arguments = parser.parse_args()
    work = arguments.work or pathlib.Path(tempfile.mkdtemp(prefix="tidemark-sizes-"))
    work.mkdir(parents=True, exist_ok=True)
    paths = {path.name.removesuffix(".zst").removesuffix(".csv"): path for path in sorted(arguments.folder.glob("*.csv*"))}
    files = {name: path for name, path in paths.items() if (TYPES / f"{name}.toml").exists()}
    if not files:
        raise SystemExit(f"{arguments.folder} has no recorded file that {TYPES} knows")
    found = [measure(name, {name: path}, arguments, work) for name, path in files.items()]
    found.append(measure("all in one store", files, arguments, work))
    report(found)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
