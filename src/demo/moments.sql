-- The workload's special moments, in this order, spread over its time: each block is one transaction.

-- two categories swap their keys and get another
INSERT INTO categories (id, name) VALUES (901, 'left'), (902, 'right');
UPDATE categories SET id = 900 WHERE id = 901;
UPDATE categories SET id = 901 WHERE id = 902;
UPDATE categories SET id = 902 WHERE id = 900;

-- a small table is emptied and filled again
TRUNCATE carts;
INSERT INTO carts (id, customer_id, items, expires_at) SELECT row_number() OVER (), id, '["fresh"]', '2030-01-01 00:00:00+00' FROM (SELECT id FROM customers ORDER BY id LIMIT 50) c;

-- the products get two columns, one of them with a default that no row is rewritten for
ALTER TABLE products ADD COLUMN warranty_months smallint NOT NULL DEFAULT 24, ADD COLUMN eco_score numeric(4,1);

-- some products have values of their own for them
UPDATE products SET warranty_months = id % 60, eco_score = (id % 1000) / 10.0 WHERE id % 4 = 0;

-- one transaction of many rows
INSERT INTO events (at, kind, took, payload)
SELECT timestamptz '2025-01-01 00:00:00+00' + i * interval '1 ms', 'import', i / 7.0, jsonb_build_object('i', i) FROM generate_series(1, 20000) i;

-- a third of them change and some go
UPDATE events SET kind = 'imported', took = NULL WHERE kind = 'import' AND id % 3 = 0;
DELETE FROM events WHERE kind = 'import' AND id % 7 = 0;

-- the small table is emptied between two inserts
INSERT INTO carts (id, customer_id, items) SELECT 1000, min(id), '[]' FROM customers;
TRUNCATE carts;
INSERT INTO carts (id, customer_id, items) SELECT 1, min(id), '["last"]' FROM customers;
