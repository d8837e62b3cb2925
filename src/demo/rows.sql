-- The rows, as many in all as the setting demo.rows says (from 2,300 on): the same ones each time.

SELECT setseed(0.42);

-- A share of all rows, in thousandths.
CREATE FUNCTION pg_temp.share(thousandths int) RETURNS int LANGUAGE sql AS
    $$ SELECT greatest(current_setting('demo.rows')::int * thousandths / 1000, 4) $$;

-- Text that does not compress, so that it is stored out of line.
CREATE FUNCTION pg_temp.noise(seed int, pieces int) RETURNS text LANGUAGE sql AS
    $$ SELECT string_agg(md5(seed || '.' || i), ' ') FROM generate_series(1, pieces) i $$;

INSERT INTO categories (parent_id, name, keywords)
SELECT CASE WHEN g > 5 THEN g % 5 + 1 END, 'Category ' || g,
       CASE g % 4 WHEN 0 THEN '{}' WHEN 1 THEN ARRAY['new', NULL, 'NULL'] ELSE ARRAY['a "b"', 'c,d', 'e\f', g::text] END
FROM generate_series(1, 40) g;

INSERT INTO customers (public_id, email, name, initials, phone, tier, newsletter, born, credit, tags, preferences, avatar, last_address, created_at)
SELECT md5('customer' || g)::uuid, 'customer' || g || '@example.com',
       (ARRAY['Ada', 'Zoë', 'Jürgen', 'Noa', '李', 'Oğuz', 'Siân', 'José'])[g % 8 + 1] || ' ' || (ARRAY['Smith', 'O''Neil', 'Núñez', 'van Dijk', 'Łoś'])[g % 5 + 1],
       chr(65 + g % 26) || chr(65 + g % 7), CASE WHEN g % 3 > 0 THEN '+31 20 ' || g END,
       (ARRAY['basic', 'plus', 'gold'])[g % 3 + 1]::tier, CASE g % 3 WHEN 0 THEN true WHEN 1 THEN false END,
       CASE WHEN g % 997 = 0 THEN 'infinity'::date WHEN g % 998 = 0 THEN '0044-03-15 BC'::date WHEN g % 999 = 0 THEN '12024-02-29'::date
            WHEN g % 11 > 0 THEN date '1940-01-01' + (g * 37) % 25000 END,
       CASE WHEN g % 1009 = 0 THEN 'NaN'::numeric ELSE (random() * 1000)::numeric(12,2) END,
       CASE g % 4 WHEN 0 THEN NULL WHEN 1 THEN '{}' WHEN 2 THEN ARRAY['vip', 'NULL', NULL] ELSE ARRAY['tab' || chr(9) || 'bed', 'quo"te', 'ünï', E'new\nline'] END,
       jsonb_build_object('lang', (ARRAY['en', 'de', 'tr'])[g % 3 + 1], 'limit', g * 1.50, 'seen', 12345678901234567890::numeric + g, 'nested', jsonb_build_array(g, NULL, true, 'a/b\c')),
       CASE WHEN g % 5 > 0 THEN decode(md5(g::text), 'hex') ELSE ''::bytea END,
       CASE WHEN g % 2 = 0 THEN ('10.' || g % 256 || '.0.1/24')::inet ELSE ('2001:db8::' || to_hex(g))::inet END,
       timestamptz '2019-01-01 00:00:00+00' + g * interval '97 minutes 0.123456 seconds'
FROM generate_series(1, pg_temp.share(100)) g;

INSERT INTO addresses
SELECT (g + 1) / 2, g % 2 + 1, g || ' High Street', (ARRAY['London', 'Kraków', 'İzmir', 'São Paulo'])[g % 4 + 1], (ARRAY['GB', 'PL', 'TR', 'BR'])[g % 4 + 1],
       CASE WHEN g % 503 = 0 THEN 'NaN' WHEN g % 7 > 0 THEN random() * 180 - 90 END, CASE WHEN g % 7 > 0 THEN (random() * 360 - 180) * 10.0 ^ (g % 20 - 10) END,
       CASE WHEN g % 3 = 0 THEN ('192.168.' || g % 256 || '.0/24')::cidr END
FROM generate_series(1, pg_temp.share(100)) g;

INSERT INTO products (category_id, sku, name, price, cost, weight, rating, sizes, dimensions, age_range, details, description, updated_at)
SELECT g % 40 + 1, 'SKU-' || lpad(g::text, 8, '0'), 'Product ' || g, (g % 100000 + 0.99)::numeric(12,2),
       CASE g % 6 WHEN 0 THEN 'NaN' WHEN 1 THEN 'Infinity' WHEN 2 THEN NULL WHEN 3 THEN (g || repeat('7', 45) || '.' || repeat('3', 30))::numeric ELSE g * 0.100 END,
       CASE WHEN g % 101 = 0 THEN 'NaN'::real ELSE (g / 7.0)::real END,
       CASE g % 5 WHEN 0 THEN 'NaN' WHEN 1 THEN 'Infinity' WHEN 2 THEN '-Infinity' ELSE g / 3.0::float8 * 10.0 ^ (g % 200 - 100) END,
       CASE g % 3 WHEN 0 THEN NULL WHEN 1 THEN ARRAY[[g, 2], [NULL, -4]] ELSE ARRAY[1, g, 2147483647] END,
       CASE WHEN g % 4 > 0 THEN ARRAY[g * 1.10, NULL, 12345678901234567890.123456789, 'NaN'] END,
       CASE g % 3 WHEN 0 THEN int4range(g, g + 5) WHEN 1 THEN 'empty' ELSE int4range(NULL, g) END,
       json_build_object('b', g, 'a', json_build_array(1.0, 2e3, 'x'), 'note', E'line\nbreak "quoted" \u2603'),
       CASE WHEN g % 4 = 0 THEN 'short ' || g ELSE pg_temp.noise(g, 100) END,
       CASE WHEN g % 211 = 0 THEN '-infinity' WHEN g % 223 = 0 THEN '4713-01-01 00:00:01 BC'::timestamp ELSE timestamp '2020-02-29 23:59:59.999999' + g * interval '1 hour' END
FROM generate_series(1, pg_temp.share(20)) g;

INSERT INTO product_images
SELECT md5('image' || g)::uuid, (g * 7) % pg_temp.share(20) + 1, g % 5, decode(md5(g::text) || md5('x' || g), 'hex'), timestamp '2021-06-01' + g * interval '1.111 seconds'
FROM generate_series(1, pg_temp.share(20)) g;

INSERT INTO orders (customer_id, status, total, placed_at, promised, status_times, coupons, note)
SELECT (g * 13) % pg_temp.share(100) + 1, (ARRAY['draft', 'placed', 'paid', 'sent', 'returned'])[g % 5 + 1]::order_status, (random() * 5000)::numeric(12,2),
       timestamptz '2022-01-01 00:00:00+00' + g * interval '53.5 seconds',
       CASE g % 4 WHEN 0 THEN interval '3 days' WHEN 1 THEN interval '-1 year 2 mons 3 days -04:05:06.789' WHEN 2 THEN interval '0' END,
       CASE WHEN g % 3 > 0 THEN ARRAY[timestamptz '2022-01-01 00:00:00.5+00' + g * interval '1 minute', NULL, CASE WHEN g % 500 = 1 THEN 'infinity' ELSE timestamptz '2022-01-02 00:00:00+00' END] END,
       CASE WHEN g % 10 = 0 THEN ARRAY[md5('coupon' || g)::uuid, md5('coupon' || g + 1)::uuid] END,
       CASE g % 6 WHEN 0 THEN '' WHEN 1 THEN E'tab\there, back\\slash, "quotes"' WHEN 2 THEN 'emoji 🎁 ' || g END
FROM generate_series(1, pg_temp.share(200)) g;

INSERT INTO order_lines
SELECT g / 2 + 1, g % 2 + 1, (g * 11) % pg_temp.share(20) + 1, g % 9 + 1, (g % 1000 + 0.5)::numeric(12,2), CASE WHEN g % 3 = 0 THEN 1.0 / (g % 97 + 1) END
FROM generate_series(0, pg_temp.share(320) - 1) g;

INSERT INTO payments
SELECT md5('payment' || g)::uuid, g, CASE WHEN g % 701 = 0 THEN 'NaN' ELSE (random() * 5000)::numeric(12,2) END,
       CASE WHEN g % 2 = 0 THEN 1 / (g % 1000 + 1)::numeric ELSE 1e-20 * g END, lpad((g % 10000)::text, 4, '0'),
       CASE WHEN g % 307 = 0 THEN '24:00:00+05:30'::timetz ELSE ('12:34:56.5-0' || g % 9)::timetz END,
       CASE WHEN g % 401 = 0 THEN 'infinity' WHEN g % 409 = 0 THEN '-infinity' WHEN g % 419 = 0 THEN '0001-12-31 23:59:59.5+00 BC'::timestamptz
            ELSE timestamptz '2022-01-01 00:00:00+00' + g * interval '53.75 seconds' END,
       ('172.16.' || g % 256 || '.' || g % 200)::inet
FROM generate_series(1, pg_temp.share(100)) g;

INSERT INTO shipments (order_id, carrier, shipped_on, pick_up, took, route)
SELECT g * 5, (ARRAY['Post', 'Bike', 'Drone'])[g % 3 + 1], CASE WHEN g % 307 = 0 THEN '-infinity'::date ELSE date '2022-01-01' + g % 900 END,
       CASE WHEN g % 53 = 0 THEN '24:00:00'::time ELSE time '00:00' + (g % 86400) * interval '1.000001 seconds' END,
       make_interval(days => g % 9, hours => -(g % 30), secs => g * 0.001),
       CASE g % 3 WHEN 0 THEN '[]' WHEN 1 THEN jsonb_build_array('depot', g, jsonb_build_object('km', g / 10.0)) ELSE '"direct"' END
FROM generate_series(1, pg_temp.share(40)) g;

INSERT INTO reviews
SELECT g % pg_temp.share(20) + 1, g / pg_temp.share(20) + 1, g % 5 + 1, CASE WHEN g % 50 = 0 THEN pg_temp.noise(g, 90) WHEN g % 4 > 0 THEN 'Review ' || g || ': très bien' END,
       timestamp '2023-03-26 02:30:00' + g * interval '1 second'
FROM generate_series(0, pg_temp.share(40) - 1) g;

INSERT INTO "StockMovements" ("ProductId", "Delta", "Reason", "movedAt")
SELECT g % pg_temp.share(20) + 1, g % 41 - 20, CASE WHEN g % 2 = 0 THEN 'count' END, CASE WHEN g % 601 = 0 THEN 'infinity' ELSE timestamptz '2023-01-01 00:00:00+00' + g * interval '7 minutes' END
FROM generate_series(1, pg_temp.share(40)) g;

INSERT INTO carts (customer_id, items, expires_at)
SELECT g, jsonb_build_array(g, g + 1), timestamptz '2024-01-01 00:00:00+00' + g * interval '1 day'
FROM generate_series(1, 4) g;

-- what is left of demo.rows
INSERT INTO events (at, kind, took, payload)
SELECT CASE WHEN g % 809 = 0 THEN '0044-03-15 12:00:00+00 BC'::timestamptz WHEN g % 811 = 0 THEN '12024-01-01 00:00:00+00'::timestamptz
            ELSE timestamptz '2024-01-01 00:00:00+00' + g * interval '3.21 seconds' END,
       (ARRAY['view', 'click', 'search'])[g % 3 + 1], random(), jsonb_build_object('page', '/p/' || g % 100, 'ms', g * 0.25)
FROM generate_series(1, greatest(1, current_setting('demo.rows')::int - 44 - pg_temp.share(100) * 3 - pg_temp.share(20) * 2 - pg_temp.share(200)
                                    - pg_temp.share(320) - pg_temp.share(40) * 3)) g;

ALTER TABLE categories ADD FOREIGN KEY (parent_id) REFERENCES categories;
ALTER TABLE addresses ADD FOREIGN KEY (customer_id) REFERENCES customers ON DELETE CASCADE;
ALTER TABLE products ADD FOREIGN KEY (category_id) REFERENCES categories;
ALTER TABLE product_images ADD FOREIGN KEY (product_id) REFERENCES products ON DELETE CASCADE;
ALTER TABLE orders ADD FOREIGN KEY (customer_id) REFERENCES customers ON DELETE CASCADE;
ALTER TABLE order_lines ADD FOREIGN KEY (order_id) REFERENCES orders ON DELETE CASCADE, ADD FOREIGN KEY (product_id) REFERENCES products;
ALTER TABLE payments ADD FOREIGN KEY (order_id) REFERENCES orders ON DELETE CASCADE;
ALTER TABLE shipments ADD FOREIGN KEY (order_id) REFERENCES orders ON DELETE CASCADE;
ALTER TABLE reviews ADD FOREIGN KEY (product_id) REFERENCES products ON DELETE CASCADE, ADD FOREIGN KEY (customer_id) REFERENCES customers ON DELETE CASCADE;
ALTER TABLE "StockMovements" ADD FOREIGN KEY ("ProductId") REFERENCES products ON DELETE CASCADE;
ALTER TABLE carts ADD FOREIGN KEY (customer_id) REFERENCES customers ON DELETE CASCADE;
-- a foreign key has no index of its own: without these every cascade reads whole tables
CREATE INDEX ON orders (customer_id);
CREATE INDEX ON order_lines (product_id);
-- for the workload's swaps of two lines
CREATE INDEX ON order_lines (order_id) WHERE line < 0;
CREATE INDEX ON payments (order_id);
CREATE INDEX ON shipments (order_id);
CREATE INDEX ON reviews (customer_id);
CREATE INDEX ON carts (customer_id);
CREATE INDEX ON product_images (product_id);
CREATE INDEX ON "StockMovements" ("ProductId");
ANALYZE;
