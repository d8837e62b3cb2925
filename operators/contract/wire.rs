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
//! Both ends are the same binary, so bytes that do not parse are a broken invariant and panic: timely has
//! no other way to refuse a message, and the process set restarts together.

use super::{Cells, Commit, Format, Item, Items, Mark, RawItem, RawItems, RawRow, RawRows, RowBatch, TableSchema};
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

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u32::try_from(bytes.len()).expect("a part is below 4 GiB").to_le_bytes());
    out.extend_from_slice(bytes);
}

fn put_json(out: &mut Vec<u8>, value: &impl serde::Serialize) {
    put(out, &serde_json::to_vec(value).expect("plain data becomes JSON"));
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn bytes(&mut self, length: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at_checked(length).expect(WHOLE);
        self.0 = rest;
        head
    }
    fn u8(&mut self) -> u8 {
        self.bytes(1)[0]
    }
    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.bytes(4).try_into().expect(WHOLE))
    }
    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes(8).try_into().expect(WHOLE))
    }
    fn part(&mut self) -> &'a [u8] {
        let length = self.u32() as usize;
        self.bytes(length)
    }
    fn json<T: DeserializeOwned>(&mut self) -> T {
        serde_json::from_slice(self.part()).expect(WHOLE)
    }
    fn words(&mut self) -> impl Iterator<Item = [u8; 8]> + 'a {
        self.part().chunks_exact(8).map(|word| word.try_into().expect(WHOLE))
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

fn get_rows(from: &mut Cursor<'_>) -> RowBatch {
    let table: Arc<TableSchema> = Arc::new(from.json());
    let ops = from.part().to_vec().into();
    let commit_lsn = from.words().map(u64::from_le_bytes).collect();
    let ordinal = from.words().map(u64::from_le_bytes).collect();
    let commit_time = from.words().map(i64::from_le_bytes).collect();
    type Texts = Vec<(usize, usize, String)>;
    let (marks, texts): (Vec<(usize, usize)>, Texts) = from.json();
    let mut unchanged = Cells::default();
    marks.into_iter().for_each(|(row, column)| unchanged.push(row, column, ()));
    let mut exact = Cells::default();
    texts.into_iter().for_each(|(row, column, text)| exact.push(row, column, text.into_boxed_str()));
    let mut ipc = StreamReader::try_new(from.part(), None).expect(WHOLE);
    let columns = ipc.next().expect(WHOLE).expect(WHOLE).columns().to_vec();
    RowBatch { table, columns, ops, commit_lsn, ordinal, commit_time, unchanged, exact }
}

fn put_item(out: &mut Vec<u8>, item: &Item) {
    match item {
        Item::Rows(batch) => {
            out.push(0);
            put_rows(out, batch);
        }
        Item::Mark(mark) => {
            out.push(1);
            // An attempt's LSN is never 0.
            let (kind, lsn, replaces) = match mark {
                Mark::SnapshotBegin { lsn, replaces, .. } => (0, *lsn, replaces.unwrap_or(0)),
                Mark::SnapshotEnd { lsn, .. } => (1, *lsn, 0),
                Mark::Schema { .. } => (2, 0, 0),
            };
            out.push(kind);
            out.extend_from_slice(&lsn.to_le_bytes());
            out.extend_from_slice(&replaces.to_le_bytes());
            put_json(out, &**mark.table());
        }
    }
}

fn get_item(tag: u8, from: &mut Cursor<'_>) -> Item {
    if tag == 0 {
        return Item::Rows(get_rows(from));
    }
    let (kind, lsn, replaces) = (from.u8(), from.u64(), from.u64());
    let table = Arc::new(from.json());
    Item::Mark(match kind {
        0 => Mark::SnapshotBegin { table, lsn, replaces: (replaces > 0).then_some(replaces) },
        1 => Mark::SnapshotEnd { table, lsn },
        _ => Mark::Schema { table },
    })
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

fn get_raw(from: &mut Cursor<'_>) -> RawRows {
    let table = Arc::new(from.json());
    let format = if from.u8() == 1 { Format::CopyBinary } else { Format::PgOutput };
    let bytes = Bytes::copy_from_slice(from.part());
    let words: Vec<[u8; 8]> = from.words().collect();
    let commits = words.chunks_exact(2).map(|c| Commit { lsn: u64::from_le_bytes(c[0]), time: i64::from_le_bytes(c[1]) }).collect();
    let words: Vec<u64> = from.words().map(u64::from_le_bytes).collect();
    let rows = words
        .chunks_exact(3)
        .map(|r| RawRow { start: (r[0] >> 32) as u32, end: r[0] as u32, commit: r[1] as u32, ordinal: r[2] })
        .collect();
    RawRows { table, format, bytes, commits, rows }
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

impl ContainerBytes for Items {
    fn from_bytes(bytes: timely::bytes::arc::Bytes) -> Self {
        let mut from = Cursor(&bytes);
        let count = from.u32();
        Self(
            (0..count)
                .map(|_| {
                    let tag = from.u8();
                    get_item(tag, &mut from)
                })
                .collect(),
        )
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
        let mut from = Cursor(&bytes);
        let count = from.u32();
        Self(
            (0..count)
                .map(|_| match from.u8() {
                    2 => RawItem::Raw(get_raw(&mut from)),
                    tag => RawItem::Ready(get_item(tag, &mut from)),
                })
                .collect(),
        )
    }
    fn length_in_bytes(&self) -> usize {
        encoded_length(self, encode_raw)
    }
    fn into_bytes<W: Write>(&self, writer: &mut W) {
        write_encoded(self, encode_raw, writer);
    }
}
