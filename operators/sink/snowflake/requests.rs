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
use super::errors::SF_ROW_SIZE;
use super::narrow::narrow;
use super::plan::TablePlan;
use super::refusal::{Refused, too_large, unheld};
use crate::contract::{CodedError, RowBatch, Token};
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

/// One request of lines that are complete, if it may have that size.
pub(super) fn frame(lines: &[u8], token: Token) -> Result<Option<Frame>, CodedError> {
    let failed = |e: std::io::Error| CodedError::definite(SF_ROW_SIZE, "rows were not compressed").caused_by(e);
    let body = Bytes::from(zstd::stream::encode_all(lines, LEVEL).map_err(failed)?);
    let rows = memchr::memchr_iter(b'\n', lines).count();
    Ok((body.len() <= LIMIT).then_some(Frame { body, first: token, last: token, rows }))
}

/// Rows of one channel, as they go out.
#[derive(Debug, Default)]
pub(super) struct Requests {
    /// The requests, in order.
    pub(super) frames: Vec<Frame>,
    /// Values that stand in `_ETL_EXACT` instead of their column.
    pub(super) exact: u64,
    /// Rows that no request has, in order: `SF0011` for one larger than a request may be, `SF0015` for a value that
    /// its column cannot hold when the plan is strict.
    pub(super) refused: Vec<Refused>,
}

/// Makes the requests for rows of one channel, in order.
///
/// # Errors
/// When rows cannot be compressed.
pub(super) fn encode(plan: &TablePlan, rows: RowBatch) -> Result<Requests, CodedError> {
    encode_within(plan, rows, Limits::default())
}

/// The exact line of every row, as a request has it, without its line break.
pub(super) fn lines(plan: &TablePlan, rows: RowBatch) -> Vec<String> {
    let rows = narrow(plan.written(rows));
    let bound_rows = plan.rows.bind(&rows);
    let line = |row| {
        let mut text = vec![b'{'];
        let any = bound_rows.write_columns(row, &mut text);
        write_metadata(plan, &rows, row, any, &mut text);
        text.pop();
        String::from_utf8_lossy(&text).into_owned()
    };
    (0..rows.len()).map(line).collect()
}

fn encode_within(plan: &TablePlan, rows: RowBatch, limits: Limits) -> Result<Requests, CodedError> {
    let rows = narrow(plan.written(rows));
    let mut refused = unheld(plan, &rows);
    let failed = |e: std::io::Error| CodedError::definite(SF_ROW_SIZE, "rows were not compressed").caused_by(e);
    let mut cutter = Cutter::new(limits);
    let bound_rows = plan.rows.bind(&rows);
    let mut text = Vec::with_capacity(limits.chunk * 2);
    let (mut held, mut first, mut last) = (0, Token::ZERO, Token::ZERO);
    let mut skipped = refused.iter().map(|r| r.row).peekable();
    for row in 0..rows.len() {
        if skipped.next_if_eq(&row).is_some() {
            continue;
        }
        let start = text.len();
        text.push(b'{');
        let any = bound_rows.write_columns(row, &mut text);
        write_metadata(plan, &rows, row, any, &mut text);
        let large = text.len() - start >= limits.chunk;
        if large && start > 0 {
            // A large row goes alone, so that only its own size decides whether it fits.
            cutter.add(&Chunk { text: &text[..start], rows: held, first, last }).map_err(failed)?;
            text.drain(..start);
            held = 0;
        }
        last = rows.token(row);
        if held == 0 {
            first = last;
        }
        held += 1;
        if text.len() >= limits.chunk {
            cutter.add(&Chunk { text: &text, rows: held, first, last }).map_err(failed)?;
            text.clear();
            held = 0;
        }
    }
    drop(skipped);
    if held > 0 {
        cutter.add(&Chunk { text: &text, rows: held, first, last }).map_err(failed)?;
    }
    cutter.cut().map_err(failed)?;
    let mut exact = rows.exact.len();
    if !refused.is_empty() {
        exact = rows.exact.iter().filter(|(row, ..)| refused.binary_search_by_key(row, |r| r.row).is_err()).count();
    }
    let mut frames = cutter.frames;
    if frames.iter().any(|f| f.body.len() > limits.compressed) {
        frames.retain(|frame| {
            let fits = frame.body.len() <= limits.compressed;
            if !fits {
                refused.push(too_large(plan, &rows, frame, limits.compressed));
            }
            fits
        });
        refused.sort_by_key(|r| r.row);
    }
    Ok(Requests { frames, exact: exact as u64, refused })
}

#[cfg(test)]
mod tests {
    use super::super::errors::SF_STRICT;
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

    fn plain(frames: &[Frame]) -> Vec<u8> {
        frames.iter().flat_map(|f| zstd::decode_all(&f.body[..]).unwrap()).collect()
    }

    #[test]
    fn a_row_as_it_is_sent() {
        let (plan, mut rows) = plan_and_rows(&["x\"y".into(), "z".into()]);
        rows.ops = b"iu".to_vec().into();
        rows.unchanged.push(1, 1, ());
        rows.exact = Cells::default();
        rows.exact.push(0, 0, "1'\"".into());
        assert_eq!(
            lines(&plan, rows.clone()).join("\n") + "\n",
            String::from_utf8(plain(&encode(&plan, rows.clone()).unwrap().frames)).unwrap()
        );
        let Requests { frames, exact, refused } = encode(&plan, rows).unwrap();
        assert_eq!((frames.len(), frames[0].rows, exact, refused.len()), (1, 2, 1, 0));
        let text = String::from_utf8(plain(&frames)).unwrap();
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
            let whole = encode(&plan, rows.clone()).unwrap().frames;
            let frames = encode_within(&plan, rows.clone(), small).unwrap().frames;
            assert_eq!(plain(&whole), plain(&frames), "{what}");
            assert_eq!(frames.iter().map(|f| f.rows).sum::<usize>(), rows.len(), "{what}");
            assert_eq!(frames.first().map(|f| f.first), rows.first_token(), "{what}");
            assert_eq!(frames.last().map(|f| f.last), rows.last_token(), "{what}");
            assert!(frames.windows(2).all(|two| two[0].last < two[1].first), "{what}");
            for frame in &frames {
                assert!(frame.body.len() <= small.compressed, "{what}: {}", frame.body.len());
                assert!(plain(std::slice::from_ref(frame)).len() <= small.plain.max(30_000), "{what}");
            }
            if what == "noise" {
                assert!(frames.len() < 16, "requests are filled: {}", frames.len());
            }
        }
        let (plan, rows) = plan_and_rows(&["a".into(), noise(60_000, 1), "b".into()]);
        let requests = encode_within(&plan, rows, small).unwrap();
        assert_eq!(requests.refused.iter().map(|r| (r.row, r.error.code)).collect::<Vec<_>>(), [(1, SF_ROW_SIZE)]);
        let sent = String::from_utf8(plain(&requests.frames)).unwrap();
        assert_eq!(sent.lines().map(|l| l.starts_with(r#"{"ID":1,"#)).collect::<Vec<_>>(), [false, false]);
        let (plan, rows) = plan_and_rows(&["a".into(), "x".repeat(500_000), "b".into()]);
        assert_eq!(encode_within(&plan, rows, small).unwrap().frames.len(), 3);
    }

    #[test]
    fn values_that_a_column_cannot_hold() {
        let columns = [("id", ColumnType::Date), ("d", ColumnType::Date)];
        let table = schema("pg", "public", "t", &columns, 1);
        let column =
            |far: usize| Arc::new(arrow::array::Date32Array::from_iter_values((0..4).map(|row| if row == far { 9_999_999 } else { 0 })));
        let rows = batch_of(&table, vec![column(1), column(2)]);
        for (merge, strict, expected) in [
            (false, false, vec![]),
            (true, false, vec![]),
            (false, true, vec![(1, SF_STRICT), (2, SF_STRICT)]),
            (true, true, vec![(1, SF_STRICT), (2, SF_STRICT)]),
        ] {
            let plan = TablePlan::new(&table, merge, strict, None).unwrap();
            let requests = encode(&plan, rows.clone()).unwrap();
            assert_eq!(requests.refused.iter().map(|r| (r.row, r.error.code)).collect::<Vec<_>>(), expected, "{merge} {strict}");
            let sent = requests.frames.iter().map(|f| f.rows).sum::<usize>();
            assert_eq!((sent, requests.exact as usize), (4 - expected.len(), 2 - expected.len()), "{merge} {strict}");
        }
    }
}
