"""`python -m local_snowflake`: see `--help`."""

from local_snowflake.options import parse
from local_snowflake.server import run

run(parse())
