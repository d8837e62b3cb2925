//! Values that Arrow holds and Snowflake does not: dates outside of years 1 to 9999, and the time 24:00:00.
//!
//! Such a value becomes null in its column and PostgreSQL's exact text among the batch's exact values, which
//! land in `_ETL_EXACT`. A batch without any is passed on as it is, after one scan of its temporal columns.

use super::super::json::{write_date, write_time, write_timestamp, write_timestamptz};
use crate::contract::calendar::{DAY, DAYS};
use crate::contract::{Cells, ColumnType, RowBatch};
use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::datatypes::{Date32Type, Time64MicrosecondType, TimestampMicrosecondType};
use std::sync::Arc;

const FIRST_DAY: i32 = DAYS.start as i32;
const LAST_DAY: i32 = DAYS.end as i32 - 1;
const FIRST_MICRO: i64 = DAYS.start * DAY;
const LAST_MICRO: i64 = DAYS.end * DAY - 1;

/// A cell to be told of: row, column, text.
type Exact = (usize, usize, Box<str>);

/// PostgreSQL's text of what a writer of JSON wrote: no quotes, a blank for the `T`, no minutes of offset.
#[cold]
fn text(write: impl FnOnce(&mut Vec<u8>)) -> Box<str> {
    let mut json = Vec::new();
    write(&mut json);
    String::from_utf8_lossy(&json).trim_matches('"').replace('T', " ").replace("+00:00", "+00").into()
}

fn check<T: ArrowPrimitiveType>(
    (column, array): (usize, &ArrayRef),
    fits: impl Fn(T::Native) -> bool,
    spell: impl Fn(T::Native, &mut Vec<u8>),
    found: &mut Vec<Exact>,
) -> Option<ArrayRef> {
    let values: &PrimitiveArray<T> = array.as_primitive();
    // Values under nulls may be anything; they are looked at only when something does not fit.
    if values.values().iter().all(|v| fits(*v)) {
        return None;
    }
    let before = found.len();
    for (row, value) in values.iter().enumerate() {
        if let Some(value) = value.filter(|v| !fits(*v)) {
            found.push((row, column, text(|out| spell(value, out))));
        }
    }
    (found.len() > before).then(|| {
        let kept: PrimitiveArray<T> = values.iter().map(|v| v.filter(|v| fits(*v))).collect();
        Arc::new(kept.with_data_type(values.data_type().clone())) as ArrayRef
    })
}

/// The batch as Snowflake's types can hold it.
pub(super) fn narrow(mut batch: RowBatch) -> RowBatch {
    let mut found = Vec::new();
    let micros = |v: i64| (FIRST_MICRO..=LAST_MICRO).contains(&v);
    for (at, column) in batch.table.columns.iter().enumerate() {
        let Some(array) = batch.columns.get(at) else { continue };
        let cell = (at, array);
        let changed = match column.ty {
            ColumnType::Date => check::<Date32Type>(cell, |v| (FIRST_DAY..=LAST_DAY).contains(&v), write_date, &mut found),
            ColumnType::Time => check::<Time64MicrosecondType>(cell, |v| v < DAY, write_time, &mut found),
            ColumnType::Timestamp => check::<TimestampMicrosecondType>(cell, micros, write_timestamp, &mut found),
            ColumnType::TimestampTz => check::<TimestampMicrosecondType>(cell, micros, write_timestamptz, &mut found),
            _ => None,
        };
        if let Some(array) = changed {
            batch.columns[at] = array;
        }
    }
    if !found.is_empty() {
        found.extend(batch.exact.iter().map(|(row, column, text)| (row, column, text.clone())));
        found.sort_by_key(|(row, column, _)| (*row, *column));
        let mut exact = Cells::default();
        for (row, column, text) in found {
            exact.push(row, column, text);
        }
        batch.exact = exact;
    }
    batch
}

#[cfg(test)]
mod tests {
    use super::super::tests::{batch_of, schema};
    use super::*;
    use arrow::array::{Date32Array, Time64MicrosecondArray, TimestampMicrosecondArray};

    #[test]
    fn what_does_not_fit_is_kept_as_text() {
        let columns = [("d", ColumnType::Date), ("t", ColumnType::Time), ("ts", ColumnType::Timestamp), ("tz", ColumnType::TimestampTz)];
        let table = schema("pg", "public", "t", &columns, 0);
        let micros = vec![Some(0), Some(LAST_MICRO + 1), None, Some(FIRST_MICRO - 1), Some(LAST_MICRO)];
        let batch = batch_of(
            &table,
            vec![
                Arc::new(Date32Array::from(vec![Some(FIRST_DAY), Some(LAST_DAY + 1), None, Some(FIRST_DAY - 1), Some(LAST_DAY)])),
                Arc::new(Time64MicrosecondArray::from(vec![Some(0), Some(DAY), None, Some(DAY - 1), Some(1)])),
                Arc::new(TimestampMicrosecondArray::from(micros.clone())),
                Arc::new(TimestampMicrosecondArray::from(micros).with_timezone("UTC")),
            ],
        );
        let narrowed = narrow(batch.clone());
        let exact: Vec<_> = narrowed.exact.iter().map(|(row, column, text)| (row, column, &**text)).collect();
        assert_eq!(
            exact,
            [
                (1, 0, "10000-01-01"),
                (1, 1, "24:00:00"),
                (1, 2, "10000-01-01 00:00:00"),
                (1, 3, "10000-01-01 00:00:00+00"),
                (3, 0, "0001-12-31 BC"),
                (3, 2, "0001-12-31 23:59:59.999999 BC"),
                (3, 3, "0001-12-31 23:59:59.999999+00 BC"),
            ]
        );
        for (column, nulls) in narrowed.columns.iter().zip([3, 2, 3, 3]) {
            assert_eq!(column.null_count(), nulls);
        }
        assert_eq!(narrowed.columns[3].data_type(), batch.columns[3].data_type());
        let fits = batch.slice(4, 1);
        assert_eq!(narrow(fits.clone()), fits);
    }
}
