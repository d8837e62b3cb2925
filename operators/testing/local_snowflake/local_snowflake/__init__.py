"""A local stand-in for Snowflake: SQL, the SQL API and Snowpipe Streaming over one DuckDB.

```text
 connector 4.8.1 ──> /session, /queries ─┐
 SQL API         ──> /api/v2/statements ─┼──> session ──> DuckDB (one file per database)
 streaming REST  ──> /v2/streaming      ─┘    commit  ──>   rows and offset tokens, one transaction
 a test          ──> /_local            ────> faults
```
Guarantees: a row and the offset token that covers it become visible, and durable, together; a
multi-statement request is one transaction. Everything else it does not promise is in README.md.
"""
