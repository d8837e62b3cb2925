//! Rows to request bodies: NDJSON, compressed, cut before the service's limit.
//!
//! ```text
//! row ──> {"A":1,…,"_OP":"i","_SEQ":"…","_COMMIT_TS":"…","_UNCHANGED":null,"_ETL_EXACT":null}\n
//!     ──> chunk of plain text ──> zstd ──> body  < 4 MB on the wire
//! ```
//! The compressor is flushed before its output could pass the limit unseen, so a body's size is known
//! while it grows and no row is compressed twice.
//!
//! Hot path: no allocation per row or value; buffers are reused within a batch.

use super::super::json::{write_string, write_timestamptz};
use super::errors::{SF_ROW_SIZE, SF_STRICT};
use super::narrow::narrow;
use super::plan::TablePlan;
use crate::contract::{CodedError, RowBatch, Token};
use arrow::array::Array;
use bytes::Bytes;
use std::io::Write;

/// The service takes 4 MB; some room is left for what a proxy may count.
const LIMIT: usize = 3_900_000;
/// Plain bytes of a request: what the service reads in one go is bounded too.
const PLAIN_LIMIT: usize = 16 << 20;
/// Plain bytes handed to the compressor at once.
const CHUNK: usize = 64 << 10;
const LEVEL: i32 = 1;

/// The body of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// Compressed NDJSON.
    pub(super) body: Bytes,
    /// First row's token.
    pub(super) first: Token,
    /// Last row's token.
    pub(super) last: Token,
    /// How many rows.
    pub(super) rows: usize,
}

/// How large requests may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    compressed: usize,
    plain: usize,
    chunk: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { compressed: LIMIT, plain: PLAIN_LIMIT, chunk: CHUNK }
    }
}

/// The most that `plain` bytes can become (`ZSTD_COMPRESSBOUND`, with the frame's ends).
fn bound(plain: usize) -> usize {
    plain + plain / 256 + 512
}

/// Grows one body after the other.
struct Cutter {
    limits: Limits,
    encoder: Option<zstd::stream::write::Encoder<'static, Vec<u8>>>,
    /// Plain bytes in the body.
    plain: usize,
    /// Plain bytes since the output's size was known.
    unflushed: usize,
    rows: usize,
    first: Token,
    last: Token,
    frames: Vec<Frame>,
}

/// Rows that go to the compressor together.
struct Chunk<'a> {
    text: &'a [u8],
    rows: usize,
    first: Token,
    last: Token,
}

impl Cutter {
    fn new(limits: Limits) -> Self {
        Self { limits, encoder: None, plain: 0, unflushed: 0, rows: 0, first: Token::ZERO, last: Token::ZERO, frames: Vec::new() }
    }

    fn size(&self) -> usize {
        self.encoder.as_ref().map_or(0, |e| e.get_ref().len())
    }

    fn add(&mut self, chunk: &Chunk<'_>) -> std::io::Result<()> {
        if self.rows > 0 {
            if self.size() + bound(self.unflushed + chunk.text.len()) > self.limits.compressed {
                if let Some(encoder) = &mut self.encoder {
                    encoder.flush()?;
                }
                self.unflushed = 0;
            }
            let full = self.size() + bound(self.unflushed + chunk.text.len()) > self.limits.compressed;
            if full || self.plain + chunk.text.len() > self.limits.plain {
                self.cut()?;
            }
        }
        if self.rows == 0 {
            self.first = chunk.first;
        }
        let encoder = match &mut self.encoder {
            Some(encoder) => encoder,
            none => none.insert(zstd::stream::write::Encoder::new(Vec::with_capacity(64 << 10), LEVEL)?),
        };
        encoder.write_all(chunk.text)?;
        self.plain += chunk.text.len();
        self.unflushed += chunk.text.len();
        self.rows += chunk.rows;
        self.last = chunk.last;
        Ok(())
    }

    fn cut(&mut self) -> std::io::Result<()> {
        if let Some(encoder) = self.encoder.take() {
            let body = Bytes::from(encoder.finish()?);
            self.frames.push(Frame { body, first: self.first, last: self.last, rows: self.rows });
        }
        (self.plain, self.unflushed, self.rows) = (0, 0, 0);
        Ok(())
    }
}

/// Writes one row's metadata members and closes its object.
fn write_metadata(plan: &TablePlan, rows: &RowBatch, row: usize, any: bool, out: &mut Vec<u8>) {
    let mut token = [0; 33];
    rows.token(row).write(&mut token);
    out.extend_from_slice(if any { b",\"_OP\":\"" } else { b"\"_OP\":\"" });
    out.push(rows.ops[row]);
    out.extend_from_slice(b"\",\"_SEQ\":\"");
    out.extend_from_slice(&token);
    out.extend_from_slice(b"\",\"_COMMIT_TS\":");
    write_timestamptz(rows.commit_time[row], out);
    out.extend_from_slice(b",\"_UNCHANGED\":");
    let mut open = b'[';
    if !rows.unchanged.is_empty() {
        for (column, ()) in rows.unchanged.row(row) {
            out.push(open);
            out.extend_from_slice(&plan.json_names[column]);
            open = b',';
        }
    }
    out.extend_from_slice(if open == b',' { b"]" } else { b"null" });
    out.extend_from_slice(b",\"_ETL_EXACT\":");
    let mut open = b'{';
    if !rows.exact.is_empty() {
        for (column, text) in rows.exact.row(row) {
            out.push(open);
            out.extend_from_slice(&plan.json_names[column]);
            out.push(b':');
            write_string(text, out);
            open = b',';
        }
    }
    out.extend_from_slice(if open == b',' { b"}" } else { b"null" });
    out.extend_from_slice(b"}\n");
}

/// Makes the requests for rows of one channel, in order.
///
/// # Errors
/// `SF0011` for a row larger than a request may be, `SF0015` for a value its column cannot hold when the
/// plan is strict.
pub(super) fn encode(plan: &TablePlan, rows: RowBatch) -> Result<(Vec<Frame>, u64), CodedError> {
    encode_within(plan, rows, Limits::default())
}

fn encode_within(plan: &TablePlan, rows: RowBatch, limits: Limits) -> Result<(Vec<Frame>, u64), CodedError> {
    let rows = narrow(plan.written(rows));
    let exact = rows.exact.len() as u64;
    if plan.strict
        && let Some((row, column, _)) = rows.exact.iter().find(|(row, column, _)| rows.columns[*column].is_null(*row))
    {
        let message = format!(
            "a value of column \"{}\" of table \"{}\" at {} cannot be held by type {}",
            rows.table.columns[column].name,
            plan.schema.full_name(),
            rows.token(row),
            plan.columns[column].ty
        );
        return Err(CodedError::definite(SF_STRICT, message)
            .hint("without `strict: true` the column is NULL there and _ETL_EXACT has the value's exact text"));
    }
    let failed = |e: std::io::Error| CodedError::definite(SF_ROW_SIZE, "rows were not compressed").caused_by(e);
    let mut cutter = Cutter::new(limits);
    let bound_rows = plan.rows.bind(&rows);
    let mut text = Vec::with_capacity(limits.chunk * 2);
    let mut from = 0;
    for row in 0..rows.len() {
        let start = text.len();
        text.push(b'{');
        let any = bound_rows.write_columns(row, &mut text);
        write_metadata(plan, &rows, row, any, &mut text);
        let large = text.len() - start >= limits.chunk;
        if large && start > 0 {
            // A large row goes alone, so that only its own size decides whether it fits.
            let chunk = Chunk { text: &text[..start], rows: row - from, first: rows.token(from), last: rows.token(row - 1) };
            cutter.add(&chunk).map_err(failed)?;
            text.drain(..start);
            from = row;
        }
        if text.len() >= limits.chunk || row + 1 == rows.len() {
            let chunk = Chunk { text: &text, rows: row + 1 - from, first: rows.token(from), last: rows.token(row) };
            cutter.add(&chunk).map_err(failed)?;
            text.clear();
            from = row + 1;
        }
    }
    cutter.cut().map_err(failed)?;
    if let Some(frame) = cutter.frames.iter().find(|f| f.body.len() > limits.compressed) {
        let message = format!(
            "a row of table \"{}\" at or before {} takes {} bytes compressed; a request to Snowpipe Streaming takes {}",
            plan.schema.full_name(),
            frame.last,
            frame.body.len(),
            limits.compressed
        );
        return Err(CodedError::definite(SF_ROW_SIZE, message).hint("leave the column with the large value out with a `project` operator"));
    }
    Ok((cutter.frames, exact))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{batch_of, schema};
    use super::*;
    use crate::contract::{Cells, ColumnType};
    use arrow::array::{Int32Array, StringArray};
    use std::sync::Arc;

    /// Text that does not compress.
    fn noise(len: usize, seed: u64) -> String {
        let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let letter = |x: &mut u64| {
            *x ^= *x << 13;
            *x ^= *x >> 7;
            *x ^= *x << 17;
            char::from(b' ' + (*x % 94) as u8)
        };
        (0..len).map(|_| letter(&mut x)).collect()
    }

    fn plan_and_rows(texts: &[String]) -> (TablePlan, RowBatch) {
        let table = schema("pg", "public", "t", &[("id", ColumnType::Int4), ("a", ColumnType::Text)], 1);
        let ids = Int32Array::from_iter_values(0..texts.len() as i32);
        let rows = batch_of(&table, vec![Arc::new(ids), Arc::new(StringArray::from(texts.to_vec()))]);
        (TablePlan::new(&table, true, false, None).unwrap(), rows)
    }

    fn lines(frames: &[Frame]) -> Vec<u8> {
        frames.iter().flat_map(|f| zstd::decode_all(&f.body[..]).unwrap()).collect()
    }

    #[test]
    fn a_row_as_it_is_sent() {
        let (plan, mut rows) = plan_and_rows(&["x\"y".into(), "z".into()]);
        rows.ops = b"iu".to_vec().into();
        rows.unchanged.push(1, 1, ());
        rows.exact = Cells::default();
        rows.exact.push(0, 0, "1'\"".into());
        let (frames, exact) = encode(&plan, rows).unwrap();
        assert_eq!((frames.len(), frames[0].rows, exact), (1, 2, 1));
        let text = String::from_utf8(lines(&frames)).unwrap();
        let expected = concat!(
            r#"{"ID":0,"A":"x\"y","_OP":"i","_SEQ":"0000000000000001/0000000000000000","_COMMIT_TS":"1970-01-01T00:00:00+00:00","#,
            r#""_UNCHANGED":null,"_ETL_EXACT":{"ID":"1'\""}}"#,
            "\n",
            r#"{"ID":1,"A":"z","_OP":"u","_SEQ":"0000000000000001/0000000000000001","_COMMIT_TS":"1970-01-01T00:00:00+00:00","#,
            r#""_UNCHANGED":["A"],"_ETL_EXACT":null}"#,
            "\n"
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn cut_before_the_limits() {
        let small = Limits { compressed: 40_000, plain: 100_000, chunk: 4_000 };
        for (what, texts) in [
            ("noise", (0..400).map(|i| noise(700, i)).collect::<Vec<_>>()),
            ("repeats", (0..400).map(|_| "a".repeat(700)).collect()),
            ("mixed", (0..400).map(|i| if i % 50 == 0 { noise(20_000, i) } else { "b".repeat(i as usize) }).collect()),
            ("one", vec!["c".into()]),
        ] {
            let (plan, rows) = plan_and_rows(&texts);
            let (whole, _) = encode(&plan, rows.clone()).unwrap();
            let (frames, _) = encode_within(&plan, rows.clone(), small).unwrap();
            assert_eq!(lines(&whole), lines(&frames), "{what}");
            assert_eq!(frames.iter().map(|f| f.rows).sum::<usize>(), rows.len(), "{what}");
            assert_eq!(frames.first().map(|f| f.first), rows.first_token(), "{what}");
            assert_eq!(frames.last().map(|f| f.last), rows.last_token(), "{what}");
            assert!(frames.windows(2).all(|two| two[0].last < two[1].first), "{what}");
            for frame in &frames {
                assert!(frame.body.len() <= small.compressed, "{what}: {}", frame.body.len());
                assert!(lines(std::slice::from_ref(frame)).len() <= small.plain.max(30_000), "{what}");
            }
            if what == "noise" {
                assert!(frames.len() < 16, "requests are filled: {}", frames.len());
            }
        }
        let (plan, rows) = plan_and_rows(&["a".into(), noise(60_000, 1), "b".into()]);
        assert_eq!(encode_within(&plan, rows, small).unwrap_err().code, SF_ROW_SIZE);
        let (plan, rows) = plan_and_rows(&["a".into(), "x".repeat(500_000), "b".into()]);
        assert_eq!(encode_within(&plan, rows, small).unwrap().0.len(), 3);
    }
}
