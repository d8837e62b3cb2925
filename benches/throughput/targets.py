"""The targets: each loads what it needs, runs its contenders in alternation, checks the rows, and says which ratios hold."""

import shutil
import statistics
import sys

import latency
import tables
from contenders import Drain, Engine, Recvlogical, log, measure
from peers import snapshot_peers


class Invalid(Exception):
    """Rows are missing, or there are too many: the figures say nothing."""


def spread(values):
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def verdict(what, values, wanted, ok):
    return {"what": what, **spread(values), "values": values, "wanted": wanted, "ok": ok(statistics.median(values))}


def at_least(what, values, limit):
    return verdict(what, values, f"≥ {limit}", lambda median: median >= limit)


def at_most(what, values, limit):
    return verdict(what, values, f"≤ {limit}", lambda median: median <= limit)


def rates(runs):
    return [run["changes"] / run["seconds"] for run in runs]


def own(runs):
    return [run["own"] / run["changes"] * 1e6 for run in runs]


def sender(runs):
    return [run["sender"] / run["changes"] * 1e6 for run in runs]


def ratios(numerators, denominators):
    """Round by round."""
    # A run too short for the scheduler's clock has no CPU: it is tiny, not nothing.
    return [a / max(b, 1e-6) for a, b in zip(numerators, denominators)]


def check(results, changes):
    for name, runs in results.items():
        for run in runs:
            if run["changes"] != changes:
                raise Invalid(f"{name} gave {run['changes']} changes of {changes}")


def table_of(results):
    """A line for each contender: what is absolute, beside the ratios."""
    lines = []
    for name, runs in results.items():
        line = {"name": name, "rows_per_second": spread(rates(runs)), "own_seconds_per_million": spread(own(runs))}
        if any(run.get("sender") for run in runs):
            line["walsender_seconds_per_million"] = spread(sender(runs))
        line["peak_mb"] = max(run["peak_mb"] for run in runs)
        line["runs"] = runs
        lines.append(line)
    return lines


def backlog(lab, changes, per, settings=None, slots=1):
    """A server with a slot, then changes in the log behind it. Returns the engine and where the log ends."""
    lab.start(settings)
    engine = Engine(lab, f"{lab.folder}/engine", slots)
    engine.prepare()
    until = tables.load(lab.server, changes, per)
    return engine, until


def parquet(lab):
    return {"type": "file", "path": "out", "format": "parquet"}


def stream(lab):
    """Target 3: catching up, for transactions of 1, 100 and 100,000 rows."""
    scenarios, verdicts = [], []
    for per in map(int, lab.options.per.split(",")):
        changes = lab.size(200_000 if per == 1 else 500_000)
        name = f"{per:,} rows a transaction" if per > 1 else "1 row a transaction"
        print(f"  {name}, {changes:,} changes", file=sys.stderr)
        engine, until = backlog(lab, changes, per)
        drain, tcp, unix = Drain(lab), Recvlogical(lab), Recvlogical(lab, unix=True)
        results = lab.alternate({
            "drain": lambda: drain.run(until, changes),
            "etl-stream → blackhole": lambda: engine.run(until, changes),
            "etl-stream → file (Parquet, zstd)": lambda: engine.run(until, changes, sink=parquet(lab)),
            "pg_recvlogical, TCP": lambda: tcp.run(until, changes),
            "pg_recvlogical, unix socket": lambda: unix.run(until, changes),
        })
        check(results, changes)
        limit, hole = results["drain"], results["etl-stream → blackhole"]
        verdicts += [
            at_least(f"{name}: rows/s to blackhole, of the drain's", ratios(rates(hole), rates(limit)), 0.9),
            at_least(f"{name}: rows/s to Parquet, of the drain's", ratios(rates(results["etl-stream → file (Parquet, zstd)"]), rates(limit)), 0.8),
            at_least(f"{name}: rows/s, of pg_recvlogical's over TCP", ratios(rates(hole), rates(results["pg_recvlogical, TCP"])), 1.0),
            at_least(f"{name}: rows/s, of pg_recvlogical's over the unix socket", ratios(rates(hole), rates(results["pg_recvlogical, unix socket"])), 1.0),
            at_most(f"{name}: the walsender's CPU a change, of its CPU under the drain", ratios(sender(hole), sender(limit)), 1.1),
        ]
        if per == 100:
            verdicts.append(at_most(f"{name}: own CPU seconds per million changes", own(hole), 2.0))
        scenarios.append({"name": f"{name}, {changes:,} changes", "lines": table_of(results)})
    return {"title": "Streaming catch-up", "number": 3, "scenarios": scenarios, "verdicts": verdicts}


def large(lab):
    """Target 4: one large transaction."""
    changes = lab.size(500_000)
    engine, until = backlog(lab, changes, changes)
    tcp = Recvlogical(lab)
    results = lab.alternate({
        "etl-stream → blackhole, in-progress streaming": lambda: engine.run(until, changes),
        "etl-stream → blackhole, streaming: off": lambda: engine.run(until, changes, source={"streaming": "off"}),
        "pg_recvlogical, TCP, without streaming": lambda: tcp.run(until, changes),
    })
    check(results, changes)
    times = {name: [run["seconds"] for run in runs] for name, runs in results.items()}
    mine, theirs = times["etl-stream → blackhole, in-progress streaming"], times["pg_recvlogical, TCP, without streaming"]
    return {"title": "A large transaction", "number": 4, "scenarios": [{"name": f"one transaction of {changes:,} rows", "lines": table_of(results)}],
            "verdicts": [at_most("time, of pg_recvlogical's", ratios(mine, theirs), 0.8)]}


def snapshot(lab):
    """Target 5: the rows of one table."""
    rows = lab.size(2_000_000)
    lab.start()
    lab.server.sql(f"CALL load(1, {rows}, 100000); VACUUM ANALYZE orders; CHECKPOINT")
    engine = Engine(lab, f"{lab.folder}/engine")

    def copy():
        shutil.rmtree(engine.folder, ignore_errors=True)
        lab.slots.drop("engine")
        engine.pipeline({"type": "blackhole"}, source={"snapshot": {"mode": "initial"}})
        done = measure(lab.server, engine.words("--until", "caught-up"), engine.folder, engine.env)
        lines = log(done.pop("errors"))
        return {**done, "changes": sum(line.get("rows", 0) for line in lines if line.get("message") == "done")}

    peers = snapshot_peers(lab, rows)
    results = lab.alternate({"etl-stream → blackhole": copy, **peers})
    check(results, rows)
    mine = rates(results["etl-stream → blackhole"])
    verdicts = [at_least("rows/s, of psql's COPY (FORMAT binary) by 4 ctid ranges at a time", ratios(mine, rates(results["psql COPY binary, 4 ranges"])), round(1 / 1.1, 2))]
    for name, limit in (("ADBC", 1.3), ("connectorx", 2.0)):
        if name in results:
            verdicts.append(at_least(f"rows/s, of {name}'s", ratios(mine, rates(results[name])), limit))
    return {"title": "Snapshot", "number": 5, "scenarios": [{"name": f"{rows:,} rows of one table", "lines": table_of(results)}], "verdicts": verdicts}


def memory(lab):
    """Target 8: the peak does not grow with the backlog."""
    peaks = {}
    for changes in (lab.size(250_000), lab.size(1_000_000)):
        engine, until = backlog(lab, changes, 100)
        results = lab.alternate({"blackhole": lambda: engine.run(until, changes), "Parquet": lambda: engine.run(until, changes, sink=parquet(lab))})
        check(results, changes)
        peaks[changes] = results
    small, big = peaks
    scenarios = [{"name": f"{changes:,} changes", "lines": table_of(results)} for changes, results in peaks.items()]
    peak = {size: [run["peak_mb"] for run in results["blackhole"]] for size, results in peaks.items()}
    most = [max(a["peak_mb"], b["peak_mb"]) for a, b in zip(peaks[big]["blackhole"], peaks[big]["Parquet"])]
    return {"title": "Memory", "number": 8, "scenarios": scenarios, "verdicts": [
        at_most("peak resident memory in MB, blackhole and Parquet", most, 150),
        at_most("peak of four times the backlog, of the smaller one's", ratios(peak[big], peak[small]), 1.15),
    ]}


def start(lab):
    """Target 9: fifty empty tables."""
    lab.start()
    lab.server.sql("".join(f"CREATE TABLE t{n} (id int8 PRIMARY KEY, v text);" for n in range(50)))
    engine = Engine(lab, f"{lab.folder}/engine")

    def begin():
        shutil.rmtree(engine.folder, ignore_errors=True)
        lab.slots.drop("engine")
        lab.server.sql("DROP PUBLICATION IF EXISTS etl_stream_bench_orders")
        return latency.until_streaming(lab, engine, [f"public.t{n}" for n in range(50)])

    results = lab.alternate({"etl-stream": begin})
    seconds = [run["seconds"] for run in results["etl-stream"]]
    return {"title": "Start", "number": 9, "scenarios": [], "verdicts": [at_most("seconds until 50 empty tables are streaming", seconds, 5.0)]}


def operators(lab):
    """Target 10: a filter and a mask, and four workers."""
    changes = lab.size(500_000)
    engine, until = backlog(lab, changes, 100)
    both = {
        "live": {"type": "filter", "inputs": ["orders"], "where": "quantity < 97 AND total >= 0"},
        "clean": {"type": "mask", "inputs": ["live"], "columns": {"public.orders.code": {"with": "hmac_sha256", "key": {"env": "MASK_KEY"}}}},
    }
    cheap = {**both, "clean": {"type": "mask", "inputs": ["live"], "columns": {"public.orders.code": {"with": "keep_last", "characters": 4}}}}
    results = lab.alternate({
        "plain": lambda: engine.run(until, changes),
        "filter and mask (hmac_sha256)": lambda: engine.run(until, changes, operators=both),
        "filter and mask (keep_last)": lambda: engine.run(until, changes, operators=cheap),
    })
    check(results, changes)
    plain = own(results["plain"])
    return {"title": "Operators on the way", "number": 10, "scenarios": [{"name": f"{changes:,} changes", "lines": table_of(results)}], "verdicts": [
        at_most(f"own CPU with a filter and a mask ({way}), of that without", ratios(own(results[f"filter and mask ({way})"]), plain), 1.15)
        for way in ("hmac_sha256", "keep_last")
    ]}


def workers(lab):
    """Target 10: four workers on one source."""
    changes = lab.size(500_000)
    engine, until = backlog(lab, changes, 100)
    results = lab.alternate({
        "1 worker": lambda: engine.run(until, changes),
        "4 workers": lambda: engine.run(until, changes, workers=4),
        "1 worker, Parquet": lambda: engine.run(until, changes, sink=parquet(lab)),
        "4 workers, Parquet": lambda: engine.run(until, changes, sink=parquet(lab), workers=4),
    })
    check(results, changes)
    one = {name: rates(runs) for name, runs in results.items()}
    # The same program against itself differs by some per cent on this machine: that much is no difference.
    return {"title": "Workers", "number": 10, "scenarios": [{"name": f"{changes:,} changes", "lines": table_of(results)}], "verdicts": [
        at_least("rows/s of four workers, of one's", ratios(one["4 workers"], one["1 worker"]), 0.95),
        at_least("rows/s of four workers to Parquet, of one's", ratios(one["4 workers, Parquet"], one["1 worker, Parquet"]), 0.95),
    ]}


def slots(lab):
    """Four slots of one server, catching up at once."""
    changes, count = lab.size(400_000), 4
    engine, until = backlog(lab, changes, 100, slots=count)
    tcp, unix = Recvlogical(lab, slots=count), Recvlogical(lab, unix=True, slots=count)
    results = lab.alternate({
        "etl-stream → blackhole": lambda: engine.run(until, changes),
        "pg_recvlogical, TCP": lambda: tcp.run(until, count * changes),
        "pg_recvlogical, unix socket": lambda: unix.run(until, count * changes),
    })
    check(results, count * changes)
    mine = rates(results["etl-stream → blackhole"])
    return {"title": "Several slots at once", "number": 11, "scenarios": [{"name": f"{count} slots, {changes:,} changes each", "lines": table_of(results)}], "verdicts": [
        at_least(f"rows/s, of {name}'s", ratios(mine, rates(results[name])), 1.0) for name in ("pg_recvlogical, TCP", "pg_recvlogical, unix socket")
    ]}


def lag(lab):
    """Target 7: commit to durable, and what an idle process costs."""
    return latency.measure_latency(lab, at_most, Invalid)


ALL = {
    "stream": stream, "large": large, "snapshot": snapshot, "latency": lag, "memory": memory, "start": start, "operators": operators, "workers": workers,
    "slots": slots,
}
