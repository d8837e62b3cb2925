//! Which values of a column are null.
//!
//! Hot path: most columns have none, so a value that is not null is counted, and no bit is written until one is null.

use arrow::array::NullBufferBuilder;
use arrow::buffer::NullBuffer;

/// The validity of a column that is being built.
pub(super) struct Validity {
    written: NullBufferBuilder,
    /// Values since, none of them null.
    valid: usize,
}

impl Validity {
    pub(super) fn new() -> Self {
        Self { written: NullBufferBuilder::new(0), valid: 0 }
    }

    #[inline]
    pub(super) fn valid(&mut self) {
        self.valid += 1;
    }

    #[inline]
    pub(super) fn null(&mut self) {
        self.write();
        self.written.append_null();
    }

    fn write(&mut self) {
        self.written.append_n_non_nulls(std::mem::take(&mut self.valid));
    }

    /// The bits, if a value is null; leaves none.
    pub(super) fn finish(&mut self) -> Option<NullBuffer> {
        self.write();
        self.written.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits() {
        let mut validity = Validity::new();
        assert!(validity.finish().is_none());
        validity.valid();
        assert!(validity.finish().is_none());
        for null in [false, true, false, false, true] {
            if null { validity.null() } else { validity.valid() }
        }
        let bits = validity.finish().unwrap();
        assert_eq!(bits.iter().collect::<Vec<_>>(), [true, false, true, true, false]);
        validity.valid();
        assert!(validity.finish().is_none());
    }
}
