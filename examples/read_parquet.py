"""A notebook's worth: changes into Parquet files, and from there into a table of current rows with pyarrow.

    pip install <the wheel>      # operators/python/wheel/build makes it
    python examples/read_parquet.py

The `# %%` lines make cells of it in editors that know them.
"""

# %% A pipeline: changes that are made up; put your `postgres` source here.
import pathlib
import tempfile

import etl_stream
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

folder = pathlib.Path(tempfile.mkdtemp(prefix="etl-stream-"))
pipeline = folder / "pipeline.yaml"
pipeline.write_text(
    """
sources: { shop: { type: synthetic, scenario: wide_update, rows: 50000 } }
sinks: { files: { type: file, inputs: [shop], format: parquet, path: ./out } }
server: none
"""
)
problems = etl_stream.validate(pipeline)
assert not problems, problems

# %% Run it until everything is there.
etl_stream.run(pipeline, until="caught-up", capture=True)

# %% Each table is a folder; its files, by name, are its history in the log's order.
table = next(path for path in sorted((folder / "out").iterdir()) if path.is_dir())
history = pa.concat_tables([pq.read_table(file) for file in sorted(table.glob("*.parquet"))], promote_options="default")
print(f"{table.name}: {history.num_rows} changes, {history.column_names}")
print(pc.value_counts(history["_op"]).to_pylist())

# %% Current rows: the last change of each key, without what is deleted. (`_unchanged` names columns whose large value an
# update did not send: theirs is in an earlier change.)
key = history.column_names[0]
numbered = history.append_column("at", pa.array(range(history.num_rows), pa.int64()))
last = numbered.group_by(key).aggregate([("at", "max")])["at_max"]
current = history.take(last)
current = current.filter(pc.not_equal(current["_op"], "d"))
print(f"{current.num_rows} current rows")
