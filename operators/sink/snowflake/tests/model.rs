//! What a table must hold after changes: recomputed from scratch, row by row.

use super::*;
use std::collections::BTreeMap;

/// A target's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) a: Option<String>,
    pub(super) b: Option<String>,
    pub(super) n: Option<i32>,
    pub(super) seq: String,
    pub(super) deleted: bool,
}

/// Folds changes; deleted rows stay, marked.
pub(super) fn fold(changes: &[Change]) -> BTreeMap<i32, Row> {
    let mut rows: BTreeMap<i32, Row> = BTreeMap::new();
    for (at, change) in changes.iter().enumerate() {
        let seq = crate::contract::Token::new(change.lsn, change.ordinal).to_string();
        match change.op {
            Op::Truncate => {
                for row in rows.values_mut().filter(|row| !row.deleted) {
                    (row.deleted, row.seq) = (true, seq.clone());
                }
            }
            Op::Delete => {
                if let Some(row) = rows.get_mut(&change.id) {
                    (row.deleted, row.seq) = (true, seq);
                }
            }
            Op::Read | Op::Insert | Op::Update => {
                // A value that was not sent is the row's own or, for a changed key, the old key's.
                let before = match change.op {
                    Op::Insert if change.a.is_err() || change.b.is_err() => rows.get(&changes[at - 1].id),
                    _ => rows.get(&change.id),
                };
                let value = |sent: &Result<Option<String>, ()>, own: fn(&Row) -> &Option<String>| {
                    sent.clone().unwrap_or_else(|()| before.and_then(|row| own(row).clone()))
                };
                let row = Row { a: value(&change.a, |r| &r.a), b: value(&change.b, |r| &r.b), n: change.n, seq, deleted: false };
                rows.insert(change.id, row);
            }
        }
    }
    rows
}

/// A small generator of numbers: the same for a seed, everywhere.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    /// A number below `sides`.
    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// A history that PostgreSQL could have: transactions of inserts, updates with values left out, changed keys,
/// swaps, deletes and truncates over a few keys.
pub(super) fn history(seed: u64, transactions: u64) -> Vec<Change> {
    let mut dice = Dice(seed);
    let mut changes: Vec<Change> = Vec::new();
    let mut live: Vec<i32> = Vec::new();
    for lsn in 1..=transactions {
        let mut ordinal = 0;
        let mut push = |changes: &mut Vec<Change>, op, id, a, b, n| {
            ordinal += if op == Op::Delete { 3 } else { 1 };
            changes.push(Change { lsn, ordinal, op, id, a, b, n });
        };
        for _ in 0..=dice.roll(3) {
            let text = |dice: &mut Dice, may: bool| match dice.roll(if may { 5 } else { 3 }) {
                0 => Ok(None),
                1 | 2 => Ok(Some(format!("v{}", dice.roll(1000)))),
                _ => Err(()),
            };
            let key = dice.roll(6) as i32;
            let n = Some(dice.roll(100) as i32);
            let at = live.iter().position(|id| *id == key);
            match (dice.roll(12), at) {
                (0, _) if dice.roll(3) == 0 => {
                    live.clear();
                    push(&mut changes, Op::Truncate, 0, Ok(None), Ok(None), None);
                }
                (_, None) => {
                    live.push(key);
                    let (a, b) = (text(&mut dice, false), text(&mut dice, false));
                    push(&mut changes, Op::Insert, key, a, b, n);
                }
                (1 | 2, Some(at)) => {
                    live.remove(at);
                    push(&mut changes, Op::Delete, key, Ok(None), Ok(None), None);
                }
                (3..=6, Some(at)) => {
                    // A changed key: the old one's delete, and at the next ordinal the new one's insert.
                    let new = (6 + dice.roll(4)) as i32;
                    let target = if live.contains(&new) { (0..20).find(|id| !live.contains(id)).unwrap() } else { new };
                    live[at] = target;
                    let (a, b) = (text(&mut dice, true), text(&mut dice, true));
                    push(&mut changes, Op::Delete, key, Ok(None), Ok(None), None);
                    push(&mut changes, Op::Insert, target, a, b, n);
                    if dice.roll(2) == 0 {
                        // And back, or on.
                        let on = if dice.roll(2) == 0 { key } else { 30 + dice.roll(3) as i32 };
                        if !live.contains(&on) {
                            live[at] = on;
                            let (a, b) = (text(&mut dice, true), text(&mut dice, true));
                            push(&mut changes, Op::Delete, target, Ok(None), Ok(None), None);
                            push(&mut changes, Op::Insert, on, a, b, n);
                        }
                    }
                }
                (_, Some(_)) => {
                    let (a, b) = (text(&mut dice, true), text(&mut dice, true));
                    push(&mut changes, Op::Update, key, a, b, n);
                }
            }
        }
    }
    changes
}
