//! Rows to request bodies: NDJSON, compressed, cut before the service's limit.
//!
//! ```text
//! row ──> {"A":1,…,"_OP":"i","_SEQ":"…","_COMMIT_TS":"…","_UNCHANGED":null,"_ETL_EXACT":null}\n
//!     ──> chunk of plain text ──> zstd ──> body  < 4 MB on the wire
//! ```
//! Rows are added delivery by delivery, so that small ones share a request. The compressor is flushed before its
//! output could pass the limit unseen: a body's size is known while it grows, and no row is compressed twice.
//!
//! Hot path: no allocation per row or value; buffers are reused within a request.

use super::super::json::{BoundRows, write_string};
use super::compress::Compressor;
use super::errors::SF_ROW_SIZE;
use super::metadata::Metadata;
use super::plan::TablePlan;
use super::refusal::{Refused, too_large};
use super::shard::Share;
use crate::contract::{CodedError, RowBatch, Token};
use bytes::Bytes;

/// The service takes 4 MB; some room is left for what a proxy may count.
const LIMIT: usize = 3_900_000;
/// Plain bytes of a request: what the service reads in one go is bounded too.
const PLAIN_LIMIT: usize = 16 << 20;
/// A plain request is one append to the SDK, whose buffers hold some 32 MB.
const APPEND: Limits = Limits { compressed: 24 << 20, plain: 4 << 20, chunk: CHUNK };
/// Plain bytes handed to the compressor at once.
const CHUNK: usize = 64 << 10;
/// What the end of a frame may take.
const END: usize = 64;

/// The body of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// NDJSON, compressed unless it was asked for as it is.
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
struct Limits {
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

fn failed(error: std::io::Error) -> CodedError {
    CodedError::definite(SF_ROW_SIZE, "rows were not compressed").caused_by(error)
}

/// Grows one body after the other.
#[derive(Default)]
struct Cutter {
    limits: Limits,
    as_it_is: bool,
    body: Option<Compressor>,
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
    fn size(&self) -> usize {
        self.body.as_ref().map_or(0, Compressor::len)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.unflushed = 0;
        self.body.as_mut().map_or(Ok(()), Compressor::flush)
    }

    fn add(&mut self, chunk: &Chunk<'_>) -> std::io::Result<()> {
        if self.rows > 0 {
            if self.size() + bound(self.unflushed + chunk.text.len()) > self.limits.compressed {
                self.flush()?;
            }
            let full = self.size() + bound(self.unflushed + chunk.text.len()) > self.limits.compressed;
            if full || self.plain + chunk.text.len() > self.limits.plain {
                self.cut()?;
            }
        }
        if self.rows == 0 {
            self.first = chunk.first;
        }
        let body = match &mut self.body {
            Some(body) => body,
            none => none.insert(if self.as_it_is { Compressor::none() } else { Compressor::new()? }),
        };
        body.write(chunk.text)?;
        self.plain += chunk.text.len();
        self.unflushed += chunk.text.len();
        self.rows += chunk.rows;
        self.last = chunk.last;
        if self.rows == chunk.rows && bound(self.plain) > self.limits.compressed {
            // Whether a row is too large is known before rows of another batch follow it.
            self.flush()?;
            if self.size() + END > self.limits.compressed {
                self.cut()?;
            }
        }
        Ok(())
    }

    fn cut(&mut self) -> std::io::Result<()> {
        if let Some(body) = self.body.take() {
            self.frames.push(Frame { body: body.finish()?, first: self.first, last: self.last, rows: self.rows });
        }
        (self.plain, self.unflushed, self.rows) = (0, 0, 0);
        Ok(())
    }
}

/// One request of lines that are complete, if it may have that size.
pub(super) fn frame(lines: &[u8], token: Token) -> Result<Option<Frame>, CodedError> {
    let mut body = Compressor::new().map_err(failed)?;
    body.write(lines).map_err(failed)?;
    let body = body.finish().map_err(failed)?;
    let rows = memchr::memchr_iter(b'\n', lines).count();
    Ok((body.len() <= LIMIT).then_some(Frame { body, first: token, last: token, rows }))
}

/// What became of rows that were added.
#[derive(Debug, Default)]
pub(super) struct Added {
    /// Values that stand in `_ETL_EXACT` instead of their column.
    pub(super) exact: u64,
    /// Rows that no request has, in order: `SF0011`, larger than a request may be.
    pub(super) refused: Vec<Refused>,
}

/// Requests for rows of one channel, in order, as they grow.
#[derive(Default)]
pub(super) struct Requests {
    cutter: Cutter,
    text: Vec<u8>,
    metadata: Metadata,
}

impl Requests {
    /// None yet; compressed, or as plain text.
    pub(super) fn new(plain: bool) -> Self {
        let cutter = if plain { Cutter { limits: APPEND, as_it_is: true, ..Cutter::default() } } else { Cutter::default() };
        Self { cutter, ..Self::default() }
    }

    /// Adds rows. `landed` is their batch as it lands ([`TablePlan::landed`]); rows of `skipped` are left out.
    ///
    /// # Errors
    /// When rows cannot be compressed.
    pub(super) fn add(&mut self, plan: &TablePlan, landed: &RowBatch, rows: &Share, skipped: &[Refused]) -> Result<Added, CodedError> {
        let Self { cutter, text, metadata } = self;
        let (limits, before) = (cutter.limits, cutter.frames.len());
        let bound_rows = plan.rows.bind(landed);
        text.reserve(limits.chunk * 2);
        let (mut held, mut first, mut last) = (0, Token::ZERO, Token::ZERO);
        let mut skipped = skipped.iter().map(|r| r.row).peekable();
        let mut added = Added::default();
        for row in rows.rows() {
            if skipped.next_if_eq(&row).is_some() {
                continue;
            }
            let start = text.len();
            write_row(plan, &bound_rows, landed, row, metadata, text);
            if !landed.exact.is_empty() {
                added.exact += landed.exact.row(row).count() as u64;
            }
            let large = text.len() - start >= limits.chunk;
            if large && start > 0 {
                // A large row goes alone, so that only its own size decides whether it fits.
                cutter.add(&Chunk { text: &text[..start], rows: held, first, last }).map_err(failed)?;
                text.drain(..start);
                held = 0;
            }
            last = landed.token(row);
            if held == 0 {
                first = last;
            }
            held += 1;
            if text.len() >= limits.chunk {
                cutter.add(&Chunk { text, rows: held, first, last }).map_err(failed)?;
                text.clear();
                held = 0;
            }
        }
        if held > 0 {
            cutter.add(&Chunk { text, rows: held, first, last }).map_err(failed)?;
            text.clear();
        }
        if cutter.frames[before..].iter().any(|f| f.body.len() > limits.compressed) {
            for frame in cutter.frames.extract_if(before.., |frame| frame.body.len() > limits.compressed) {
                added.refused.push(too_large(plan, landed, &frame, limits.compressed));
            }
        }
        Ok(added)
    }

    /// Whether there is a request in it that is best sent before more is added.
    pub(super) fn full(&self) -> bool {
        let Cutter { limits, plain, frames, .. } = &self.cutter;
        !frames.is_empty() || *plain >= limits.plain / 2 || self.cutter.size() >= limits.compressed / 2
    }

    /// The requests.
    ///
    /// # Errors
    /// When rows cannot be compressed.
    pub(super) fn finish(mut self) -> Result<Vec<Frame>, CodedError> {
        self.cutter.cut().map_err(failed)?;
        Ok(self.cutter.frames)
    }
}

/// Writes one row's line.
fn write_row(plan: &TablePlan, bound: &BoundRows<'_>, rows: &RowBatch, row: usize, metadata: &mut Metadata, out: &mut Vec<u8>) {
    out.push(b'{');
    if bound.write_columns(row, out) {
        out.push(b',');
    }
    metadata.begin(rows, row, out);
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

/// The exact line of every row, as a request has it, without its line break.
pub(super) fn lines(plan: &TablePlan, rows: RowBatch) -> Vec<String> {
    let rows = plan.landed(rows);
    let (bound, mut metadata) = (plan.rows.bind(&rows), Metadata::default());
    let mut line = |row| {
        let mut text = Vec::new();
        write_row(plan, &bound, &rows, row, &mut metadata, &mut text);
        text.pop();
        String::from_utf8_lossy(&text).into_owned()
    };
    (0..rows.len()).map(&mut line).collect()
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

    /// Requests for a batch that is added in pieces.
    fn encode(plan: &TablePlan, rows: &RowBatch, limits: Limits, piece: usize) -> (Vec<Frame>, u64, Vec<Refused>) {
        let mut requests = Requests { cutter: Cutter { limits, ..Cutter::default() }, ..Requests::default() };
        let (mut exact, mut refused) = (0, Vec::new());
        for at in (0..rows.len()).step_by(piece) {
            let part = rows.slice(at, piece.min(rows.len() - at));
            let added = requests.add(plan, &plan.landed(part.clone()), &Share::whole(part), &[]).unwrap();
            exact += added.exact;
            refused.extend(added.refused.into_iter().map(|r| Refused { row: r.row + at, ..r }));
        }
        (requests.finish().unwrap(), exact, refused)
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
        let (frames, exact, refused) = encode(&plan, &rows, Limits::default(), 10);
        assert_eq!((frames.len(), frames[0].rows, exact, refused.len()), (1, 2, 1, 0));
        assert_eq!(lines(&plan, rows).join("\n") + "\n", String::from_utf8(plain(&frames)).unwrap());
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
            let (whole, ..) = encode(&plan, &rows, Limits::default(), usize::MAX);
            // However the rows are delivered, requests are cut by their size.
            for piece in [1, 7, 100, usize::MAX] {
                let (frames, _, refused) = encode(&plan, &rows, small, piece);
                assert_eq!(plain(&whole), plain(&frames), "{what}");
                assert_eq!((frames.iter().map(|f| f.rows).sum::<usize>(), refused.len()), (rows.len(), 0), "{what}");
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
        }
        for piece in [1, 2, 3] {
            let (plan, rows) = plan_and_rows(&["a".into(), noise(60_000, 1), "b".into()]);
            let (frames, _, refused) = encode(&plan, &rows, small, piece);
            assert_eq!(refused.iter().map(|r| (r.row, r.error.code)).collect::<Vec<_>>(), [(1, SF_ROW_SIZE)]);
            let sent = String::from_utf8(plain(&frames)).unwrap();
            assert_eq!(sent.lines().map(|l| l.starts_with(r#"{"ID":1,"#)).collect::<Vec<_>>(), [false, false]);
            let (plan, rows) = plan_and_rows(&["a".into(), "x".repeat(500_000), "b".into()]);
            assert_eq!(encode(&plan, &rows, small, piece).0.len(), 3);
        }
    }
}
