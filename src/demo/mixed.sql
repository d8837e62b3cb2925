-- The workload's everyday transactions. A block is one transaction: $a and $b are random numbers, the
-- number in a block's heading is how often it is chosen. A block that ends in ROLLBACK undoes itself.

-- place an order: 30
INSERT INTO orders (customer_id, status, total, placed_at, promised, status_times, coupons, note)
SELECT id, 'placed', ($a % 100000) / 100.0, clock_timestamp(), make_interval(hours => $b % 100), ARRAY[clock_timestamp()], ARRAY[gen_random_uuid()], 'order $a'
FROM customers WHERE id >= $a % (SELECT max(id) FROM customers) ORDER BY id LIMIT 1;
INSERT INTO order_lines (order_id, line, product_id, quantity, unit_price, discount)
SELECT currval('orders_id_seq'), row_number() OVER (), id, $b % 9 + 1, price, 1.0 / ($a % 7 + 1)
FROM (SELECT id, price FROM products WHERE id >= $b % (SELECT max(id) FROM products) ORDER BY id LIMIT 3) p
WHERE EXISTS (SELECT FROM orders WHERE id = (SELECT currval('orders_id_seq')));
INSERT INTO payments (id, order_id, amount, exchange_rate, card_digits, authorised_at, paid_at, from_address)
SELECT gen_random_uuid(), id, total, 1.0 / ($b % 13 + 1), '4242', clock_timestamp()::timetz, clock_timestamp(), '10.1.2.3' FROM orders WHERE id = (SELECT currval('orders_id_seq'));
INSERT INTO "StockMovements" ("ProductId", "Delta", "Reason", "movedAt")
SELECT product_id, -quantity, 'sale', clock_timestamp() FROM order_lines WHERE order_id = (SELECT currval('orders_id_seq'));

-- an order goes on: 20
UPDATE orders SET status = 'sent', status_times = status_times || clock_timestamp()
WHERE id = (SELECT id FROM orders WHERE id >= $a % (SELECT max(id) FROM orders) ORDER BY id LIMIT 1);
INSERT INTO shipments (order_id, carrier, shipped_on, pick_up, took, route)
SELECT id, 'Bike', CURRENT_DATE, LOCALTIME, make_interval(mins => $b % 5000), jsonb_build_array('depot', $a, $b / 8.0)
FROM orders WHERE id >= $a % (SELECT max(id) FROM orders) ORDER BY id LIMIT 1;

-- a price changes and the long description beside it does not: 15
UPDATE products SET price = price + 0.01, rating = CASE $b % 4 WHEN 0 THEN 'NaN' ELSE $b / 7.0::float8 END, updated_at = clock_timestamp()
WHERE id = (SELECT id FROM products WHERE id >= $a % (SELECT max(id) FROM products) ORDER BY id LIMIT 1);

-- the long description changes: 5
UPDATE products SET description = (SELECT string_agg(md5($a || '.' || i), ' ') FROM generate_series(1, 80) i), cost = CASE $b % 3 WHEN 0 THEN 'NaN' ELSE $b * 0.000000000001 END
WHERE id = (SELECT id FROM products WHERE id >= $a % (SELECT max(id) FROM products) ORDER BY id LIMIT 1);

-- a customer changes: 10
UPDATE customers SET preferences = preferences || jsonb_build_object('seen', $b), tags = array_append(tags, 'tag, "$a"'),
       born = CASE $b % 20 WHEN 0 THEN '-infinity' WHEN 1 THEN '0100-01-01 BC'::date ELSE born END, avatar = decode(md5('$b'), 'hex')
WHERE id = (SELECT id FROM customers WHERE id >= $a % (SELECT max(id) FROM customers) ORDER BY id LIMIT 1);

-- an order goes away with its lines, payments and shipments: 6
DELETE FROM orders WHERE id = (SELECT id FROM orders WHERE id >= $a % (SELECT max(id) FROM orders) ORDER BY id LIMIT 1);

-- a customer goes away with everything of theirs: 1
DELETE FROM customers WHERE id = (SELECT id FROM customers WHERE id >= $a % (SELECT max(id) FROM customers) ORDER BY id LIMIT 1);

-- an address gets another key: 6
UPDATE addresses SET number = number + 2
WHERE (customer_id, number) = (SELECT customer_id, max(number) FROM addresses WHERE customer_id >= $a % (SELECT max(customer_id) FROM addresses)
                               GROUP BY customer_id HAVING max(number) < 30000 ORDER BY customer_id LIMIT 1);

-- two lines of an order swap their keys: 6
UPDATE order_lines SET line = -1 WHERE line = 1 AND order_id = (SELECT min(order_id) FROM order_lines WHERE line = 2 AND order_id >= $a % (SELECT max(id) FROM orders));
UPDATE order_lines SET line = 1 WHERE line = 2 AND order_id = (SELECT min(order_id) FROM order_lines WHERE line = -1);
UPDATE order_lines SET line = 2 WHERE line = -1;

-- a review is written anew, its key deleted and inserted in one transaction: 6
DELETE FROM reviews WHERE product_id = $a % 50 + 1 AND customer_id = 1;
INSERT INTO reviews SELECT $a % 50 + 1, 1, $b % 5 + 1, 'again $b', clock_timestamp() WHERE EXISTS (SELECT FROM customers WHERE id = 1)
   AND EXISTS (SELECT FROM products WHERE id = $a % 50 + 1);

-- a row comes and goes in one transaction: 3
INSERT INTO events (at, kind, took, payload) VALUES ('infinity', 'brief', 'NaN', '{"n": $a}');
UPDATE events SET took = 1 WHERE id = (SELECT currval('events_id_seq'));
DELETE FROM events WHERE id = (SELECT currval('events_id_seq'));

-- a savepoint is undone and the rest stands: 5
INSERT INTO events (at, kind, took, payload) VALUES (clock_timestamp(), 'before', 0.5, '{"n": $a}');
SAVEPOINT half;
DELETE FROM events WHERE id > $b % 1000 AND id < $b % 1000 + 20;
UPDATE products SET price = 0 WHERE id = $a % 50 + 1;
ROLLBACK TO SAVEPOINT half;
INSERT INTO events (at, kind, took, payload) VALUES (clock_timestamp(), 'after', 1e-7, '{"n": $b}');

-- many small events: 8
INSERT INTO events (at, kind, took, payload)
SELECT clock_timestamp(), 'burst', i / 3.0, jsonb_build_object('i', i, 'of', $a) FROM generate_series(1, 25) i;

-- nothing of this is to be seen: 3
DELETE FROM customers WHERE id = $a % 100 + 1;
INSERT INTO events (at, kind, payload) SELECT clock_timestamp(), 'undone', to_jsonb(i) FROM generate_series(1, 100) i;
ROLLBACK;
