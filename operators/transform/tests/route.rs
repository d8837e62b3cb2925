//! Where a route sends each operation.

use super::{batch, operator, orders, show, with_ops};
use crate::contract::{Kind, Registry};
use crate::testing::drive::drive;
use serde_json::json;

#[test]
fn first_match_wins() {
    let settings = json!({ "tables": ["public.orders"], "routes": { "z_big": "total > 1000", "paid": "status = 'paid'" } });
    let registry = super::register(Registry::empty());
    let node = registry.get(Kind::Operator, "route").expect("it is registered");
    assert_eq!((node.parse)(settings.clone()).expect("settings").outputs(), ["z_big", "paid", "rest"]);

    let mut route = operator("route", &settings);
    let rows =
        [("1", "paid", "2000"), ("2", "paid", "5"), ("3", "draft", "5"), ("4", "paid", "5"), ("5", "draft", "9999"), ("6", "draft", "0")]
            .map(|(id, status, total)| vec![Some(id), Some(status), Some(total), None]);
    let outputs = drive(&mut *route, [with_ops(batch(orders(), &rows), "riiuud")]).expect("rows");
    let shown: Vec<(usize, Vec<String>)> = outputs.iter().map(|(output, batch)| (*output, show(batch))).collect();
    let deleted = "d 6|draft|0.0000|-".to_owned();
    let expected = [
        (0, vec!["r 1|paid|2000.0000|-", "d 4|-|-|-", "u 5|draft|9999.0000|-"]),
        (1, vec!["i 2|paid|5.0000|-", "u 4|paid|5.0000|-", "d 5|-|-|-"]),
        (2, vec!["i 3|draft|5.0000|-", "d 4|-|-|-", "d 5|-|-|-"]),
    ];
    for ((output, rows), (expected_output, expected)) in shown.into_iter().zip(expected) {
        let expected: Vec<String> = expected.into_iter().map(str::to_owned).chain([deleted.clone()]).collect();
        assert_eq!((output, rows), (expected_output, expected));
    }

    let mut other = orders();
    other.name = "other".into();
    let rest = drive(&mut *route, [with_ops(batch(other, &rows), "riiuud")]).expect("rows");
    assert_eq!(rest.iter().map(|(output, batch)| (*output, batch.len())).collect::<Vec<_>>(), [(2, 6)]);
}
