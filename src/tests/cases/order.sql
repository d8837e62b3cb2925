-- Each line is one batch of statements; a line that begins with a blank goes on with the one before it.
-- %T stands for each of the tables that differ in replica identity only. big() is a value that is neither short nor
-- compressible, so that PostgreSQL does not send it with an update that leaves it as it is.

-- setup
CREATE FUNCTION big(text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT string_agg(md5($1 || i), '') FROM generate_series(1, 100) i $$
CREATE SCHEMA k
CREATE TABLE %T (id int PRIMARY KEY, a text, b text, n int)
INSERT INTO %T SELECT i, big('a' || i), big('b' || i), i FROM generate_series(1, 40) i
ALTER TABLE k.full_items REPLICA IDENTITY FULL
CREATE TABLE k.by_index (id int PRIMARY KEY, code int NOT NULL, part text NOT NULL, a text)
CREATE UNIQUE INDEX by_code ON k.by_index (code, part)
ALTER TABLE k.by_index REPLICA IDENTITY USING INDEX by_code
INSERT INTO k.by_index SELECT i, i * 10, 'p' || i % 2, big('i' || i) FROM generate_series(1, 6) i
CREATE TABLE k.big_key (name text PRIMARY KEY, a text, n int)
ALTER TABLE k.big_key ALTER name SET STORAGE EXTERNAL
INSERT INTO k.big_key SELECT repeat(chr(64 + i), 2500), big('k' || i), i FROM generate_series(1, 6) i
CREATE TABLE k.animals (id int PRIMARY KEY, name text)
CREATE TABLE k.dogs (id int PRIMARY KEY, tricks text) INHERITS (k.animals)
INSERT INTO k.animals VALUES (1, 'cat')
INSERT INTO k.dogs VALUES (1, 'rex', 'sit'), (2, 'bo', 'roll')
CREATE TABLE k.parts (id int, region text, a text, PRIMARY KEY (id, region)) PARTITION BY LIST (region)
CREATE TABLE k.parts_eu PARTITION OF k.parts FOR VALUES IN ('eu')
CREATE TABLE k.parts_us (a text, region text NOT NULL, gone int, id int NOT NULL)
ALTER TABLE k.parts_us DROP COLUMN gone, ADD PRIMARY KEY (id, region)
ALTER TABLE k.parts ATTACH PARTITION k.parts_us FOR VALUES IN ('us')
INSERT INTO k.parts SELECT i, CASE WHEN i % 2 = 0 THEN 'eu' ELSE 'us' END, big('p' || i) FROM generate_series(1, 10) i
CREATE TABLE k.heads (id serial PRIMARY KEY, v text)
CREATE TABLE k.tails (id int PRIMARY KEY, head int REFERENCES k.heads, v text)
INSERT INTO k.heads (v) SELECT 'h' || i FROM generate_series(1, 5) i
INSERT INTO k.tails SELECT i, i, big('t' || i) FROM generate_series(1, 5) i
CREATE TABLE k.mark (id int PRIMARY KEY)
CREATE SCHEMA "Zwölf Ünï.k"
CREATE TABLE "Zwölf Ünï.k"."select" ("group" int PRIMARY KEY, "Order By" text, "a""b" text, "back\slash" text, "it's" text, "né" text, "$1" int)
INSERT INTO "Zwölf Ünï.k"."select" VALUES (1, 'a', 'b', 'c', 'd', 'e', 2)
CREATE TABLE "Zwölf Ünï.k"."Mixed Case" ("Group" int PRIMARY KEY, "aÉ" text)
INSERT INTO "Zwölf Ünï.k"."Mixed Case" VALUES (1, 'upper')
CREATE TABLE "Zwölf Ünï.k"."a%b?c#d&e' ""g""\h.i" (id int PRIMARY KEY, v text)
INSERT INTO "Zwölf Ünï.k"."a%b?c#d&e' ""g""\h.i" VALUES (1, 'odd')
CREATE TABLE k."猫猫猫猫猫猫猫猫猫猫猫猫猫猫猫猫猫猫猫猫猫" ("犬犬犬犬犬犬犬犬犬犬犬犬犬犬犬犬犬犬犬犬犬" int PRIMARY KEY, v text)
CREATE UNLOGGED TABLE k.unlogged (id int PRIMARY KEY)
CREATE VIEW k.seen AS SELECT id FROM k.mark
CREATE MATERIALIZED VIEW k.stored AS SELECT id FROM k.mark

-- to files alone
CREATE SCHEMA b
CREATE TABLE b.nothing (id int PRIMARY KEY, a text)
ALTER TABLE b.nothing REPLICA IDENTITY NOTHING
INSERT INTO b.nothing VALUES (1, 'one')
CREATE TABLE b.abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijk (abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijk int PRIMARY KEY, v text)
DO $$ BEGIN EXECUTE 'CREATE TABLE b.wide (id int PRIMARY KEY, a text, ' || (SELECT string_agg('c' || i || ' int', ', ') FROM generate_series(1, 1000) i) || ')'; END $$
INSERT INTO b.wide (id, a, c1, c1000) VALUES (1, big('w1'), 1, 1000), (2, big('w2'), 2, 2000)
CREATE TABLE b.derived (id int PRIMARY KEY, a int, twice int GENERATED ALWAYS AS (a * 2) STORED)
INSERT INTO b.derived VALUES (1, 10), (2, 20)
CREATE TABLE b.bag (x int, a text, y text)
ALTER TABLE b.bag REPLICA IDENTITY FULL
INSERT INTO b.bag SELECT i % 3, big('g' || i % 3), NULL FROM generate_series(1, 9) i
CREATE TABLE b.swapped (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, v text)
ALTER TABLE b.swapped REPLICA IDENTITY FULL
INSERT INTO b.swapped SELECT i, big('s' || i) FROM generate_series(1, 8) i
CREATE TABLE b.plain (v text)
INSERT INTO b.plain VALUES ('x'), ('x')
CREATE TABLE b.none ()
INSERT INTO b.none DEFAULT VALUES

-- listed
CREATE SCHEMA l
CREATE TABLE l.cols (id int PRIMARY KEY, hidden text, a text, n int)
INSERT INTO l.cols SELECT i, 'h' || i, big('c' || i), i FROM generate_series(1, 6) i
CREATE TABLE l.rows (id int, n int, a text, PRIMARY KEY (id, n))
ALTER TABLE l.rows REPLICA IDENTITY FULL
INSERT INTO l.rows SELECT i, i % 4, big('r' || i) FROM generate_series(1, 12) i
CREATE TABLE l.parts (id int, region text, a text, PRIMARY KEY (id, region)) PARTITION BY LIST (region)
CREATE TABLE l.parts_eu PARTITION OF l.parts FOR VALUES IN ('eu')
CREATE TABLE l.parts_us PARTITION OF l.parts FOR VALUES IN ('us')
INSERT INTO l.parts SELECT i, CASE WHEN i % 2 = 0 THEN 'eu' ELSE 'us' END, big('p' || i) FROM generate_series(1, 10) i
CREATE PUBLICATION listed FOR TABLE l.cols (id, a, n), l.rows WHERE (n > 0), l.parts WITH (publish_via_partition_root = false)

-- round 1
BEGIN; DELETE FROM %T WHERE id = 1; INSERT INTO %T VALUES (1, big('1b'), 'short', 1); COMMIT
BEGIN; INSERT INTO %T VALUES (101, big('x'), big('y'), 0); UPDATE %T SET n = 1 WHERE id = 101; DELETE FROM %T WHERE id = 101; COMMIT
BEGIN; INSERT INTO %T VALUES (102, big('x'), big('y'), 0); UPDATE %T SET n = 1 WHERE id = 102; UPDATE %T SET id = 103 WHERE id = 102; COMMIT
BEGIN; UPDATE %T SET id = -2 WHERE id = 2; UPDATE %T SET id = 2 WHERE id = 3; UPDATE %T SET id = 3 WHERE id = -2; COMMIT
BEGIN; UPDATE %T SET id = 104 WHERE id = 4; UPDATE %T SET id = 204, n = -4 WHERE id = 104; UPDATE %T SET id = 4, b = big('4c') WHERE id = 204; COMMIT
BEGIN; UPDATE %T SET id = -id WHERE id BETWEEN 6 AND 8; UPDATE %T SET id = CASE WHEN id = -8 THEN 6 ELSE 1 - id END WHERE id BETWEEN -8 AND -6; COMMIT
DO $$ BEGIN FOR i IN 1..40 LOOP UPDATE %T SET n = i WHERE id = 10; END LOOP; END $$
UPDATE %T SET a = big('11a') WHERE id = 11
UPDATE %T SET b = big('11b') WHERE id = 11
UPDATE %T SET n = 11 WHERE id = 11
UPDATE %T SET n = 12 WHERE id = 12
UPDATE %T SET id = 112 WHERE id = 12
UPDATE %T SET n = 112 WHERE id = 112
BEGIN; UPDATE %T SET a = big('13') WHERE id = 13; UPDATE %T SET id = 113, n = 5 WHERE id = 13; UPDATE %T SET b = big('113') WHERE id = 113; COMMIT
BEGIN; DELETE FROM %T WHERE id = 14; INSERT INTO %T VALUES (14, big('14n'), big('14m'), 0); UPDATE %T SET n = 14 WHERE id = 14; COMMIT
UPDATE %T SET n = 15, a = NULL WHERE id = 14
BEGIN; SAVEPOINT s; UPDATE %T SET a = 'undone' WHERE id = 15; INSERT INTO %T VALUES (150); ROLLBACK TO s; UPDATE %T SET n = 15 WHERE id = 15; SAVEPOINT t; INSERT INTO %T VALUES (151, 'kept'); RELEASE t; COMMIT
BEGIN; INSERT INTO %T VALUES (152, 'rolled back'); ROLLBACK
BEGIN; SET LOCAL session_replication_role = replica; UPDATE %T SET n = 16 WHERE id = 16; COMMIT
SELECT pg_replication_origin_create('elsewhere')
SELECT pg_replication_origin_session_setup('elsewhere')
UPDATE %T SET n = 17 WHERE id = 17
SELECT pg_replication_origin_session_reset()
BEGIN; DELETE FROM %T WHERE id = 18; UPDATE %T SET id = 18 WHERE id = 19; INSERT INTO %T VALUES (19, 'after'); COMMIT
UPDATE k.by_index SET code = code + 1 WHERE id = 1
BEGIN; UPDATE k.by_index SET code = -1 WHERE id = 2; UPDATE k.by_index SET code = 20, part = 'p1' WHERE id = 3; UPDATE k.by_index SET code = 30, part = 'p0' WHERE id = 2; COMMIT
UPDATE k.by_index SET id = 40 WHERE id = 4
DELETE FROM k.by_index WHERE id = 5
INSERT INTO b.nothing VALUES (2, 'two')
UPDATE k.big_key SET n = n + 1
UPDATE k.big_key SET name = repeat('z', 2600) WHERE n = 2
DELETE FROM k.big_key WHERE n = 4
UPDATE k.animals SET name = name || '!'
DELETE FROM ONLY k.animals
INSERT INTO k.dogs VALUES (3, 'new', NULL)
UPDATE k.parts SET region = 'us' WHERE id = 2
UPDATE k.parts SET region = 'eu', id = 11 WHERE id = 1
UPDATE k.parts SET id = 30 WHERE id = 3
UPDATE k.parts SET a = a || '' WHERE id = 4
CREATE TABLE k.parts_xx (id int, region text, a text, PRIMARY KEY (id, region))
ALTER TABLE k.parts ATTACH PARTITION k.parts_xx FOR VALUES IN ('xx')
INSERT INTO k.parts VALUES (50, 'xx', big('50'))
UPDATE k.parts SET region = 'xx' WHERE id = 5
BEGIN; INSERT INTO k.heads (v) VALUES ('before'); UPDATE k.tails SET head = 1 WHERE id = 2; TRUNCATE k.heads RESTART IDENTITY CASCADE; INSERT INTO k.heads (v) VALUES ('after'); INSERT INTO k.tails VALUES (9, 1, big('t9')); COMMIT
UPDATE k.tails SET head = NULL
UPDATE "Zwölf Ünï.k"."select" SET "Order By" = 'x', "né" = NULL
INSERT INTO "Zwölf Ünï.k"."select" VALUES (2, 'a', 'b', 'c', 'd', 'e', 2)
UPDATE "Zwölf Ünï.k"."Mixed Case" SET "Group" = 2
UPDATE "Zwölf Ünï.k"."a%b?c#d&e' ""g""\h.i" SET id = 2
INSERT INTO b.abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijk VALUES (1, 'long')
INSERT INTO k."猫猫猫猫猫猫猫猫猫猫猫猫猫猫猫猫猫猫猫猫猫" VALUES (1, 'cat')
UPDATE b.wide SET c500 = 5 WHERE id = 1
UPDATE b.wide SET id = 3 WHERE id = 2
UPDATE b.derived SET a = 11 WHERE id = 1
UPDATE b.bag SET x = 7 WHERE ctid = (SELECT min(ctid) FROM b.bag WHERE x = 1)
DELETE FROM b.bag WHERE ctid = (SELECT min(ctid) FROM b.bag WHERE x = 2)
UPDATE b.bag SET y = 'all'
UPDATE b.swapped SET id = 3 - id WHERE id IN (1, 2)
BEGIN; UPDATE b.swapped SET id = 4 WHERE id = 3; UPDATE b.swapped SET id = 30 WHERE id = 4 AND v = big('s3'); COMMIT
UPDATE b.swapped SET id = 4 + (id - 3) % 5 WHERE id BETWEEN 4 AND 8
INSERT INTO b.plain VALUES ('y')
INSERT INTO b.none DEFAULT VALUES
UPDATE l.cols SET hidden = 'unseen' WHERE id = 1
UPDATE l.cols SET n = n + 100, hidden = 'x' WHERE id = 2
UPDATE l.cols SET id = 30 WHERE id = 3
UPDATE l.rows SET n = 0 WHERE id = 1
UPDATE l.rows SET n = 9 WHERE id = 4
UPDATE l.rows SET n = n + 1 WHERE id = 5
DELETE FROM l.rows WHERE id IN (6, 8)
UPDATE l.parts SET region = 'us' WHERE id = 2
UPDATE l.parts SET id = 30 WHERE id = 3
INSERT INTO k.mark VALUES (1)

-- round 2
UPDATE %T SET n = n + 1
UPDATE %T SET id = id + 1000 WHERE id % 3 = 0
BEGIN; UPDATE %T SET id = -id WHERE id IN (20, 22); UPDATE %T SET id = CASE id WHEN -20 THEN 22 ELSE 20 END, n = 0 WHERE id IN (-20, -22); COMMIT
DELETE FROM %T WHERE id % 7 = 0
INSERT INTO %T SELECT i, big('r2' || i), NULL, i FROM generate_series(7, 28, 7) i
UPDATE %T SET b = big('late'), n = NULL WHERE id IN (7, 23)
BEGIN; UPDATE %T SET n = 1 WHERE id = 25; UPDATE %T SET id = 2500 WHERE id = 25; DELETE FROM %T WHERE id = 2500; INSERT INTO %T VALUES (25, 'plain', big('25'), 2); UPDATE %T SET a = a || '!' WHERE id = 25; COMMIT
UPDATE k.by_index SET a = big('new') WHERE id = 40
UPDATE k.by_index SET part = 'zz'
UPDATE k.big_key SET a = 'small' WHERE n = 6
UPDATE k.big_key SET n = -n
UPDATE k.parts SET region = CASE region WHEN 'eu' THEN 'us' ELSE 'eu' END WHERE id < 8
UPDATE k.parts SET id = id + 100
BEGIN; DELETE FROM k.parts WHERE region = 'xx'; ALTER TABLE k.parts DETACH PARTITION k.parts_xx; COMMIT
DROP TABLE k.parts_xx
UPDATE k.tails SET id = id + 1
UPDATE b.wide SET c7 = 7
UPDATE b.wide SET c8 = 8 WHERE id = 3
UPDATE b.bag SET y = y || x
UPDATE l.parts SET region = 'eu' WHERE id = 2
UPDATE l.cols SET n = 0
ALTER TABLE k.items REPLICA IDENTITY FULL
UPDATE k.items SET n = 2 WHERE id < 30
ALTER TABLE k.items REPLICA IDENTITY DEFAULT
UPDATE k.items SET n = 3 WHERE id < 20
INSERT INTO k.mark VALUES (2)

-- round 3
BEGIN; UPDATE %T SET n = 3 WHERE id = 21; INSERT INTO %T VALUES (9000, 'goes'); TRUNCATE %T; INSERT INTO %T VALUES (1, big('t1'), big('u1'), 1), (2, big('t2'), 'x', 2); UPDATE %T SET n = 5 WHERE id = 1; UPDATE %T SET id = 3 WHERE id = 2; COMMIT
UPDATE %T SET n = 6
TRUNCATE k.big_key, k.by_index
INSERT INTO k.by_index VALUES (1, 1, 'p', big('again'))
UPDATE k.by_index SET code = 2
TRUNCATE k.parts
INSERT INTO k.parts VALUES (1, 'eu', big('pe')), (2, 'us', big('pu'))
UPDATE k.parts SET region = 'eu', id = 3 WHERE id = 2
TRUNCATE k.heads CASCADE
TRUNCATE b.bag
INSERT INTO b.bag VALUES (1, 'x', NULL), (1, 'x', NULL)
DELETE FROM b.bag WHERE ctid = (SELECT min(ctid) FROM b.bag)
TRUNCATE b.none
TRUNCATE l.parts_us
TRUNCATE l.rows
INSERT INTO l.rows VALUES (1, 0, 'unseen'), (2, 2, 'seen')
INSERT INTO k.mark VALUES (3)
