"""The end-to-end measurements: starts a server, loads it, alternates the contenders, writes JSON and the page.

Called by `benches/run`; how each figure is taken is in `benches/METHODOLOGY.md`.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time

import page
import tables
import targets
from contenders import Slots
from server import Server

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
OUT = os.environ.get("ETL_STREAM_BENCH_OUT", f"{ROOT}/target/bench")


class Lab:
    """What the targets share."""

    def __init__(self, options):
        self.options = options
        self.binary = os.environ.get("ETL_STREAM_BIN", f"{ROOT}/target/release/etl-stream")
        self.drain = f"{OUT}/drain"
        self.python = f"{OUT}/venv/bin/python"
        self.folder = tempfile.mkdtemp(prefix="work-", dir=OUT)
        self.server = self.slots = None
        self.version = ""

    def start(self, settings=None):
        """A fresh server with the table."""
        self.stop()
        self.server = Server(settings)
        self.version = self.server.version
        self.slots = Slots(self.server)
        self.server.sql(tables.SCHEMA)

    def stop(self):
        if self.server:
            self.server.close()
            self.server = None

    def size(self, changes):
        return max(int(changes * self.options.scale), 100)

    def alternate(self, contenders):
        """Runs every contender once in each round, each round beginning with another; results by name, by round."""
        results = {name: [] for name in contenders}
        names = list(contenders)
        for turn in range(self.options.rounds):
            for name in names[turn % len(names):] + names[: turn % len(names)]:
                load = os.getloadavg()[0]
                result = contenders[name]()
                for noise in ("output", "errors", "start", "end"):
                    result.pop(noise, None)
                result["load_before"] = load
                results[name].append(result)
                say(f"    {name}: {summary(result)}")
        return results


def summary(result):
    parts = []
    if result.get("changes") and result.get("seconds"):
        parts.append(f"{result['changes'] / result['seconds']:,.0f}/s")
    for key, unit in (("own", "s own"), ("sender", "s walsender"), ("peak_mb", "MB")):
        if key in result:
            parts.append(f"{result[key]:.2f} {unit}")
    return ", ".join(parts)


def say(text):
    print(text, file=sys.stderr, flush=True)


def main():
    parser = argparse.ArgumentParser(prog="benches/run", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"{', '.join(targets.ALL)}; or all (the default)")
    parser.add_argument("--quick", action="store_true", help="two rounds of a tenth of the changes: to see that it works")
    parser.add_argument("--rounds", type=int, help="rounds of each comparison (default 5)")
    parser.add_argument("--scale", type=float, help="times the usual number of changes (default 1)")
    parser.add_argument("--per", default="1,100,100000", help="rows a transaction that `stream` is measured with (default 1,100,100000)")
    parser.add_argument("--no-page", action="store_true", help="leave docs/benchmarks.md as it is")
    parser.add_argument("--page-only", action="store_true", help="measure nothing; write docs/benchmarks.md from target/bench")
    options = parser.parse_args()
    options.rounds = options.rounds or (2 if options.quick else 5)
    options.scale = options.scale or (0.1 if options.quick else 1.0)
    chosen = options.targets or ["all"]
    unknown = [name for name in chosen if name != "all" and name not in targets.ALL]
    if unknown:
        parser.error(f"there is no target {', '.join(unknown)}")
    chosen = list(targets.ALL) if "all" in chosen else chosen
    os.makedirs(OUT, exist_ok=True)
    failed = []
    if not options.page_only:
        lab = Lab(options)
        try:
            for name in chosen:
                say(f"{name}:")
                start = time.time()
                try:
                    result = targets.ALL[name](lab)
                except targets.Invalid as why:
                    failed.append(name)
                    say(f"  INVALID: {why}")
                    continue
                finally:
                    lab.stop()
                result.update(target=name, taken=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(start)), took=round(time.time() - start),
                              rounds=options.rounds, scale=options.scale, machine=page.machine(lab))
                with open(f"{OUT}/{name}.json", "w") as f:
                    json.dump(result, f, indent=1)
                for line in result["verdicts"]:
                    say(f"  {'ok  ' if line['ok'] else 'MISS'} {line['what']}: {line['median']:.2f} ({line['low']:.2f} to {line['high']:.2f}), wanted {line['wanted']}")
        finally:
            lab.stop()
            shutil.rmtree(lab.folder, ignore_errors=True)
    if not options.no_page:
        page.write(OUT, f"{ROOT}/docs/benchmarks.md")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
