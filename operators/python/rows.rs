//! A row batch to Arrow IPC, and what the user's code made of it back to a row batch.
//!
//! ```text
//! RowBatch ──> columns, _op, _commit_lsn, _ordinal, _commit_ts, _row ──> the user's code
//!    + rows that left, by _row ──> RowBatch      (operations, tokens, times, unchanged marks and exact texts are the engine's)
//! ```
//! # Guarantees
//! A row that leaves has the token, operation and time it came with. A row that does not leave: an insert is dropped; an
//! update goes on as a delete of its key, for the row may have been there; deletes and truncates go on as they came. A
//! value that PostgreSQL did not send stays marked so.
//!
//! Hot path: no allocation per row or value where all rows leave.

use super::shape::{ROW, SYSTEM, arrow_schema, refused};
use crate::contract::{Cells, CodedError, Op, RowBatch, TableSchema};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, StringArray, TimestampMicrosecondArray, UInt32Array, UInt64Array, make_array};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::{interleave, nullif};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit, UInt32Type};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use bytes::Bytes;
use std::sync::Arc;

/// The batch with the log's columns.
///
/// # Errors
/// When the arrays do not fit the table.
pub(super) fn record_batch(batch: &RowBatch) -> Result<RecordBatch, ArrowError> {
    let schema = arrow_schema(&batch.table);
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let types = [DataType::Utf8, DataType::UInt64, DataType::UInt64, utc, DataType::UInt32];
    let mut fields: Vec<Arc<Field>> = schema.fields().iter().cloned().collect();
    fields.extend(SYSTEM.iter().zip(types).map(|(name, ty)| Arc::new(Field::new(*name, ty, false))));
    let rows = batch.len();
    let letters = StringArray::try_new(OffsetBuffer::from_repeated_length(1, rows), batch.ops.inner().clone(), None)?;
    let times = TimestampMicrosecondArray::new(batch.commit_time.clone(), None).with_timezone("UTC");
    let mut columns = batch.columns.clone();
    columns.push(Arc::new(letters));
    columns.push(Arc::new(UInt64Array::new(batch.commit_lsn.clone(), None)));
    columns.push(Arc::new(UInt64Array::new(batch.ordinal.clone(), None)));
    columns.push(Arc::new(times));
    columns.push(Arc::new(UInt32Array::from_iter_values(0..rows as u32)));
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone())), columns, &options)
}

/// A stream of one batch, or of none.
///
/// # Errors
/// When it cannot be encoded.
pub(super) fn stream(schema: &Schema, batch: Option<&RecordBatch>) -> Result<Bytes, ArrowError> {
    let room = batch.map_or(0, RecordBatch::get_array_memory_size) + (4 << 10);
    let mut writer = StreamWriter::try_new(Vec::with_capacity(room.min(64 << 20)), schema)?;
    if let Some(batch) = batch {
        writer.write(batch)?;
    }
    Ok(writer.into_inner()?.into())
}

/// Reads a stream's schema and its first batch, whose arrays share the bytes.
pub(super) fn read(bytes: Bytes) -> Result<(Arc<Schema>, Option<RecordBatch>), ArrowError> {
    let mut decoder = StreamDecoder::new();
    let mut buffer = Buffer::from(bytes);
    let mut batch = None;
    while batch.is_none() && !buffer.is_empty() {
        batch = decoder.decode(&mut buffer)?;
    }
    let schema = decoder.schema().ok_or_else(|| ArrowError::IpcError("the bytes have no schema".into()))?;
    Ok((schema, batch))
}

/// Where each row of what leaves comes from.
enum Kept {
    /// All rows leave.
    All,
    /// For each row that leaves: its number in the batch, and its number in what came back; none for one that goes on all
    /// the same.
    Some(Vec<(u32, Option<u32>)>),
}

/// The rows that leave.
fn kept(batch: &RowBatch, made: &RecordBatch) -> Result<Kept, CodedError> {
    let table = &batch.table;
    let Some(numbers) = made.column_by_name(ROW) else {
        if made.num_rows() == batch.len() {
            return Ok(Kept::All);
        }
        let why = format!("{} rows for {}, and no column \"{ROW}\" that tells which they are", made.num_rows(), batch.len());
        return Err(refused(table, &why).hint("give one row for each that came, or keep the column `_row`, as filter and take do"));
    };
    let wrong = |why: &str| refused(table, why).hint("keep the column `_row` as it came, and its rows in order");
    let numbers = numbers.as_primitive_opt::<UInt32Type>().ok_or_else(|| wrong("its column \"_row\" is not of type uint32"))?;
    if numbers.null_count() > 0 {
        return Err(wrong("its column \"_row\" has nulls"));
    }
    let numbers = numbers.values();
    let in_order = numbers.windows(2).all(|pair| pair[0] < pair[1]);
    if !in_order || numbers.last().is_some_and(|last| *last as usize >= batch.len()) {
        return Err(wrong("its column \"_row\" is not the numbers of rows that came, in order, each once"));
    }
    if numbers.len() == batch.len() {
        return Ok(Kept::All);
    }
    let mut rows = Vec::with_capacity(numbers.len());
    let mut next = 0;
    for row in 0..batch.len() as u32 {
        if numbers.get(next) == Some(&row) {
            rows.push((row, Some(next as u32)));
            next += 1;
        } else if !matches!(batch.op(row as usize), Op::Insert | Op::Read) {
            rows.push((row, None));
        }
    }
    Ok(Kept::Some(rows))
}

/// What came back as columns of the table that leaves.
fn columns(made: &RecordBatch, batch: &RowBatch, out: &TableSchema) -> Result<Vec<ArrayRef>, CodedError> {
    let schema = made.schema();
    let extra: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).filter(|n| *n != ROW && out.column(n).is_none()).collect();
    if !extra.is_empty() {
        let why = format!("it has columns that `schema` does not name: {}", extra.join(", "));
        return Err(refused(&batch.table, &why).hint("say so in `schema`, or select the columns that it names"));
    }
    let mut columns = Vec::with_capacity(out.columns.len());
    for column in &out.columns {
        let wanted = column.ty.arrow();
        let Some(array) = made.column_by_name(&column.name) else {
            let why = format!("column \"{}\" is missing", column.name);
            return Err(refused(&batch.table, &why).hint("say in `schema` what leaves, or keep the column"));
        };
        if *array.data_type() != wanted {
            let why = format!("column \"{}\" is of type {} instead of {wanted}", column.name, array.data_type());
            return Err(refused(&batch.table, &why).hint("cast it, or say its type in `schema`"));
        }
        columns.push(Arc::clone(array));
    }
    Ok(columns)
}

/// A column of what came in, as one of what leaves; nulls where it is not of the key.
fn original(batch: &RowBatch, out: &TableSchema, at: usize) -> ArrayRef {
    let column = &out.columns[at];
    let same = batch.table.column(&column.name).filter(|from| column.key.is_some() && batch.table.columns[*from].ty == column.ty);
    match same {
        Some(from) => Arc::clone(&batch.columns[from]),
        None => arrow::array::new_null_array(&column.ty.arrow(), batch.len()),
    }
}

/// The batch that leaves.
///
/// # Errors
/// `PY0005` when what came back is not what was said, or lost the rows' order.
pub(super) fn leave(batch: &RowBatch, made: &RecordBatch, out: &Arc<TableSchema>) -> Result<RowBatch, CodedError> {
    let mut arrays = columns(made, batch, out)?;
    let mut left = match kept(batch, made)? {
        Kept::All => RowBatch { table: Arc::clone(out), ..batch.clone() },
        Kept::Some(rows) => {
            if rows.iter().any(|(_, from)| from.is_none()) {
                for (at, array) in arrays.iter_mut().enumerate() {
                    let before = original(batch, out, at);
                    let places: Vec<(usize, usize)> =
                        rows.iter().map(|(row, from)| from.map_or((1, *row as usize), |from| (0, from as usize))).collect();
                    *array = interleave(&[array, &before], &places)
                        .map_err(|e| refused(&batch.table, "its rows were not joined with those that go on").caused_by(e))?;
                }
            }
            let numbers: Vec<u32> = rows.iter().map(|(row, _)| *row).collect();
            let mut left = RowBatch { columns: Vec::new(), ..batch.clone() }.take(&numbers);
            left.ops = rows.iter().zip(left.ops.iter()).map(|((_, from), op)| gone(*op, from.is_none())).collect::<ScalarBuffer<u8>>();
            left.table = Arc::clone(out);
            left
        }
    };
    said_of_cells(batch, &mut left, &mut arrays, out);
    left.columns = arrays;
    Ok(left)
}

/// The operation of a row that goes on all the same.
fn gone(op: u8, goes_on: bool) -> u8 {
    if goes_on && op == Op::Update.letter() { Op::Delete.letter() } else { op }
}

/// Carries over what is said of cells: a value that was not sent stays so, an exact text stays with a value that did.
fn said_of_cells(batch: &RowBatch, left: &mut RowBatch, arrays: &mut [ArrayRef], out: &TableSchema) {
    if batch.unchanged.is_empty() && batch.exact.is_empty() {
        return;
    }
    // The column that one of what came in is now.
    let now: Vec<Option<usize>> = batch.table.columns.iter().map(|c| out.column(&c.name)).collect();
    let live = |op: u8, key: bool| key || !matches!(Op::from_letter(op), Some(Op::Delete | Op::Truncate));
    let mut cells: Vec<(usize, usize)> = left.unchanged.iter().filter_map(|(row, column, ())| Some((row, now[column]?))).collect();
    cells.retain(|(row, column)| live(left.ops[*row], out.columns[*column].key.is_some()));
    cells.sort_unstable();
    for (at, array) in arrays.iter_mut().enumerate() {
        let own: Vec<usize> = cells.iter().filter(|(row, column)| *column == at && array.is_valid(*row)).map(|(row, _)| *row).collect();
        if !own.is_empty() {
            let mut mask = vec![false; array.len()];
            own.into_iter().for_each(|row| mask[row] = true);
            *array = nullif(array, &BooleanArray::from(mask)).unwrap_or_else(|_| make_array(array.to_data()));
        }
    }
    let mut exact: Vec<(usize, usize, Box<str>)> = Vec::new();
    // Rows of what leaves are a subsequence of what came: walk both by token.
    for (row, column, text) in left.exact.iter() {
        let Some(at) = now[column].filter(|at| live(left.ops[row], out.columns[*at].key.is_some())) else { continue };
        let came = batch.after(left.token(row)).len();
        let before = batch.columns[column].slice(batch.len() - came - 1, 1);
        if before.data_type() == arrays[at].data_type() && before.as_ref() == arrays[at].slice(row, 1).as_ref() {
            exact.push((row, at, text.clone()));
        }
    }
    exact.sort_unstable_by_key(|(row, column, _)| (*row, *column));
    left.unchanged = Cells::default();
    cells.into_iter().for_each(|(row, column)| left.unchanged.push(row, column, ()));
    left.exact = Cells::default();
    exact.into_iter().for_each(|(row, column, text)| left.exact.push(row, column, text));
}
