//! Containers as bytes, for edges that cross processes (timely's cluster mode).
//!
//! ```text
//! container := count:u32 item*          item := tag:u8 part*          part := length:u32 bytes
//! tag 0 rows:   schema(JSON) ops(u8*) commit_lsn(u64*) ordinal(u64*) commit_time(i64*)
//!               cells(JSON) columns(Arrow IPC stream)
//! tag 1 mark:   kind(u8) lsn(u64) schema(JSON)
//! tag 2 raw:    schema(JSON) format(u8) bytes commits((u64 i64)*) rows((u32 u32 u32 u64)*)
//! ```
//!
//! Both ends are the same binary, so bytes that do not parse are a broken invariant: reading them is an error, and
//! [`ContainerBytes::from_bytes`] panics with it. timely has no other way to refuse a message, and the process set
//! restarts together. A count or length is believed only as far as bytes have come.

use super::{Cells, Commit, Format, Item, Items, Mark, RawItem, RawItems, RawRow, RawRows, RowBatch, TableSchema};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{Field, Schema};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use std::cell::RefCell;
use std::io::Write;
use std::sync::Arc;
use timely::dataflow::channels::ContainerBytes;

const WHOLE: &str = "a container's bytes were written by the same binary";

/// The bytes are no container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bytes of another process are not what this program writes: {0}")]
pub(super) struct Garbled(&'static str);

type Read<T> = Result<T, Garbled>;

const CUT: Garbled = Garbled("they end inside a part");

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u32::try_from(bytes.len()).expect("a part is below 4 GiB").to_le_bytes());
    out.extend_from_slice(bytes);
}

fn put_json(out: &mut Vec<u8>, value: &impl serde::Serialize) {
    put(out, &serde_json::to_vec(value).expect("plain data becomes JSON"));
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn bytes(&mut self, length: usize) -> Read<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length).ok_or(CUT)?;
        self.0 = rest;
        Ok(head)
    }
    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(CUT)?;
        self.0 = rest;
        Ok(*head)
    }
    fn u8(&mut self) -> Read<u8> {
        self.array::<1>().map(|[byte]| byte)
    }
    fn u32(&mut self) -> Read<u32> {
        self.array().map(u32::from_le_bytes)
    }
    fn u64(&mut self) -> Read<u64> {
        self.array().map(u64::from_le_bytes)
    }
    fn part(&mut self) -> Read<&'a [u8]> {
        let length = self.u32()? as usize;
        self.bytes(length)
    }
    fn json<T: DeserializeOwned>(&mut self) -> Read<T> {
        serde_json::from_slice(self.part()?).map_err(|_| Garbled("a description is not one"))
    }
    /// Groups of `N` words of 64 bits.
    fn words<const N: usize>(&mut self) -> Read<impl Iterator<Item = [u64; N]> + 'a> {
        let (words, rest) = self.part()?.as_chunks::<8>();
        let (groups, odd) = words.as_chunks::<N>();
        if rest.is_empty() && odd.is_empty() {
            Ok(groups.iter().map(|group| group.map(u64::from_le_bytes)))
        } else {
            Err(Garbled("a list of numbers is cut"))
        }
    }
    /// So many items as the first four bytes say.
    fn items<T>(&mut self, mut item: impl FnMut(&mut Self) -> Read<T>) -> Read<Vec<T>> {
        let count = self.u32()?;
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }
}

fn put_rows(out: &mut Vec<u8>, batch: &RowBatch) {
    put_json(out, &*batch.table);
    put(out, &batch.ops);
    put(out, &batch.commit_lsn.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>());
    put(out, &batch.ordinal.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>());
    put(out, &batch.commit_time.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>());
    let unchanged: Vec<(usize, usize)> = batch.unchanged.iter().map(|(r, c, ())| (r, c)).collect();
    let exact: Vec<(usize, usize, &str)> = batch.exact.iter().map(|(r, c, text)| (r, c, &**text)).collect();
    put_json(out, &(unchanged, exact));
    let fields: Vec<Field> =
        batch.columns.iter().enumerate().map(|(i, c)| Field::new(i.to_string(), c.data_type().clone(), true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let options = RecordBatchOptions::new().with_row_count(Some(batch.len()));
    let columns =
        RecordBatch::try_new_with_options(Arc::clone(&schema), batch.columns.clone(), &options).expect("columns are as long as the batch");
    let mut ipc = StreamWriter::try_new(Vec::new(), &schema).expect("a vector can be written");
    ipc.write(&columns).expect("a vector can be written");
    put(out, &ipc.into_inner().expect("a vector can be written"));
}

fn get_rows(from: &mut Cursor<'_>) -> Read<RowBatch> {
    let table: Arc<TableSchema> = Arc::new(from.json()?);
    let ops: ScalarBuffer<u8> = from.part()?.to_vec().into();
    let commit_lsn: ScalarBuffer<u64> = from.words()?.map(|[v]| v).collect();
    let ordinal: ScalarBuffer<u64> = from.words()?.map(|[v]| v).collect();
    let commit_time: ScalarBuffer<i64> = from.words()?.map(|[v]| v.cast_signed()).collect();
    type Texts = Vec<(usize, usize, String)>;
    let (marks, texts): (Vec<(usize, usize)>, Texts) = from.json()?;
    let rows = ops.len();
    let unchanged = cells(marks.into_iter().map(|(row, column)| (row, column, ())), rows, &table)?;
    let exact = cells(texts.into_iter().map(|(row, column, text)| (row, column, text.into_boxed_str())), rows, &table)?;
    let garbled = |_| Garbled("the columns are no Arrow stream");
    let mut ipc = StreamReader::try_new(from.part()?, None).map_err(garbled)?;
    let columns = ipc.next().ok_or(CUT)?.map_err(garbled)?.columns().to_vec();
    let even = columns.iter().all(|array| array.len() == rows) && [commit_lsn.len(), ordinal.len(), commit_time.len()] == [rows; 3];
    if !even || columns.len() != table.columns.len() {
        return Err(Garbled("the columns are not those of the table"));
    }
    Ok(RowBatch { table, columns, ops, commit_lsn, ordinal, commit_time, unchanged, exact })
}

/// Cells of a batch, which must be in order and inside it.
fn cells<T: Clone>(entries: impl Iterator<Item = (usize, usize, T)>, rows: usize, table: &TableSchema) -> Read<Cells<T>> {
    let (mut cells, mut last) = (Cells::default(), None);
    for (row, column, value) in entries {
        if row >= rows || column >= table.columns.len() || last.is_some_and(|last| last >= (row, column)) {
            return Err(Garbled("a cell is outside its batch or out of order"));
        }
        last = Some((row, column));
        cells.push(row, column, value);
    }
    Ok(cells)
}

fn put_item(out: &mut Vec<u8>, item: &Item) {
    match item {
        Item::Rows(batch) => {
            out.push(0);
            put_rows(out, batch);
        }
        Item::Mark(mark) => {
            out.push(1);
            let (kind, lsn) = match mark {
                Mark::SnapshotBegin { lsn, .. } => (0, *lsn),
                Mark::SnapshotEnd { lsn, .. } => (1, *lsn),
                Mark::Schema { .. } => (2, 0),
            };
            out.push(kind);
            out.extend_from_slice(&lsn.to_le_bytes());
            put_json(out, &**mark.table());
        }
    }
}

fn get_item(tag: u8, from: &mut Cursor<'_>) -> Read<Item> {
    if tag == 0 {
        return get_rows(from).map(Item::Rows);
    }
    let (kind, lsn) = (from.u8()?, from.u64()?);
    let table = Arc::new(from.json()?);
    Ok(Item::Mark(match (tag, kind) {
        (1, 0) => Mark::SnapshotBegin { table, lsn },
        (1, 1) => Mark::SnapshotEnd { table, lsn },
        (1, 2) => Mark::Schema { table },
        _ => return Err(Garbled("an item is of a kind that does not exist")),
    }))
}

fn put_raw(out: &mut Vec<u8>, raw: &RawRows) {
    out.push(2);
    put_json(out, &*raw.table);
    out.push(u8::from(raw.format == Format::CopyBinary));
    put(out, &raw.bytes);
    put(out, &raw.commits.iter().flat_map(|c| [c.lsn.to_le_bytes(), c.time.to_le_bytes()]).flatten().collect::<Vec<_>>());
    let rows = raw.rows.iter().flat_map(|r| [u64::from(r.start) << 32 | u64::from(r.end), u64::from(r.commit), r.ordinal]);
    put(out, &rows.flat_map(u64::to_le_bytes).collect::<Vec<_>>());
}

fn get_raw(from: &mut Cursor<'_>) -> Read<RawRows> {
    let table = Arc::new(from.json()?);
    let format = match from.u8()? {
        0 => Format::PgOutput,
        1 => Format::CopyBinary,
        _ => return Err(Garbled("rows are in a format that does not exist")),
    };
    let bytes = Bytes::copy_from_slice(from.part()?);
    let commits = from.words()?.map(|[lsn, time]| Commit { lsn, time: time.cast_signed() }).collect();
    let row =
        |[place, commit, ordinal]: [u64; 3]| RawRow { start: (place >> 32) as u32, end: place as u32, commit: commit as u32, ordinal };
    let rows = from.words()?.map(row).collect();
    Ok(RawRows { table, format, bytes, commits, rows })
}

thread_local! {
    /// The last encoding made for its length, by the container's address: timely asks for the length and
    /// then, at once, for the bytes of the same container.
    static ENCODED: RefCell<(usize, Vec<u8>)> = const { RefCell::new((0, Vec::new())) };
}

fn encoded_length<C>(container: &C, encode: impl FnOnce(&C) -> Vec<u8>) -> usize {
    let bytes = encode(container);
    let length = bytes.len();
    ENCODED.with(|cache| *cache.borrow_mut() = (std::ptr::from_ref(container) as usize, bytes));
    length
}

fn write_encoded<C, W: Write>(container: &C, encode: impl FnOnce(&C) -> Vec<u8>, writer: &mut W) {
    let (address, bytes) = ENCODED.take();
    let bytes = if address == std::ptr::from_ref(container) as usize { bytes } else { encode(container) };
    writer.write_all(&bytes).expect("timely reserved the bytes it was told of");
}

fn encode_items(items: &Items) -> Vec<u8> {
    let mut out = (items.0.len() as u32).to_le_bytes().to_vec();
    items.0.iter().for_each(|item| put_item(&mut out, item));
    out
}

fn encode_raw(items: &RawItems) -> Vec<u8> {
    let mut out = (items.0.len() as u32).to_le_bytes().to_vec();
    for item in &items.0 {
        match item {
            RawItem::Raw(raw) => put_raw(&mut out, raw),
            RawItem::Ready(item) => put_item(&mut out, item),
        }
    }
    out
}

impl Items {
    /// Reads a container.
    pub(super) fn read(bytes: &[u8]) -> Read<Self> {
        let mut from = Cursor(bytes);
        let items = from.items(|from| {
            let tag = from.u8()?;
            get_item(tag, from)
        })?;
        Ok(Self(items))
    }
}

impl RawItems {
    /// Reads a container.
    pub(super) fn read(bytes: &[u8]) -> Read<Self> {
        let mut from = Cursor(bytes);
        let items = from.items(|from| match from.u8()? {
            2 => get_raw(from).map(RawItem::Raw),
            tag => get_item(tag, from).map(RawItem::Ready),
        })?;
        Ok(Self(items))
    }
}

impl ContainerBytes for Items {
    fn from_bytes(bytes: timely::bytes::arc::Bytes) -> Self {
        Self::read(&bytes).expect(WHOLE)
    }
    fn length_in_bytes(&self) -> usize {
        encoded_length(self, encode_items)
    }
    fn into_bytes<W: Write>(&self, writer: &mut W) {
        write_encoded(self, encode_items, writer);
    }
}

impl ContainerBytes for RawItems {
    fn from_bytes(bytes: timely::bytes::arc::Bytes) -> Self {
        Self::read(&bytes).expect(WHOLE)
    }
    fn length_in_bytes(&self) -> usize {
        encoded_length(self, encode_raw)
    }
    fn into_bytes<W: Write>(&self, writer: &mut W) {
        write_encoded(self, encode_raw, writer);
    }
}
