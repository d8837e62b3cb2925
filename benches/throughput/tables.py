"""The table of ten columns, and the changes that are measured: about 364 bytes a row as pgoutput text."""

COLUMNS = """
    id int8 PRIMARY KEY, quantity int4, note text, code varchar(40), total numeric(18,4), placed timestamptz, paid bool,
    details jsonb, key uuid, tags text[]
"""

# A row made of its number `n`.
ROW = """
    n, (n % 97)::int4, 'order number ' || n || ' of a customer with a note', 'SKU-' || (n % 100000),
    ((n * 13) % 1000000 + (n % 10000) / 10000.0)::numeric(18,4), '2026-11-01 00:00:00.123457+00'::timestamptz + (n % 2000000) * interval '1 second',
    n % 2 = 0,
    ('{"sku": "A-' || n || '", "lines": [{"n": 1, "price": 12.50}, {"n": 2, "price": 7.25}], "gift": false, "by": "web"}')::jsonb,
    ('a0eebc99-9c0b-4ef8-bb6d-6bb9' || lpad(to_hex(n % 4294967296), 8, '0'))::uuid, ARRAY['red', 'dark green', 'blue' || (n % 100)]
"""

SCHEMA = f"""
CREATE TABLE orders ({COLUMNS});
CREATE PUBLICATION bench FOR TABLE orders;
CREATE PROCEDURE load(first int8, changes int8, per int8) LANGUAGE plpgsql AS $$
DECLARE at int8 := first;
BEGIN
    WHILE at < first + changes LOOP
        INSERT INTO orders SELECT {ROW} FROM generate_series(at, least(at + per, first + changes) - 1) n;
        at := at + per;
        COMMIT;
    END LOOP;
END $$;
-- One row at a time, in a transaction each: the plan is kept.
CREATE PROCEDURE load_single(first int8, changes int8) LANGUAGE plpgsql AS $$
DECLARE n int8;
BEGIN
    FOR n IN first .. first + changes - 1 LOOP
        INSERT INTO orders VALUES ({ROW});
        COMMIT;
    END LOOP;
END $$;
"""


def load(server, changes, per, first=1):
    """Writes `changes` inserts in transactions of `per`; returns where they end."""
    call = f"CALL load_single({first}, {changes})" if per == 1 else f"CALL load({first}, {changes}, {per})"
    server.sql(call)
    return server.flushed()
