//! Credit that is given back unless it goes with a chunk.

use crate::contract::Credits;

/// Bytes taken from the source's credit.
#[derive(Debug)]
pub(crate) struct Held {
    credits: Credits,
    bytes: u32,
}

impl Held {
    /// Waits for `bytes` of credit.
    pub(super) async fn take(credits: &Credits, bytes: u32) -> Self {
        credits.take(bytes).await;
        Self { credits: credits.clone(), bytes }
    }

    /// Takes charge of credit that was handed over before.
    pub(super) fn of(credits: &Credits, bytes: u32) -> Self {
        Self { credits: credits.clone(), bytes }
    }

    /// Makes it exactly `bytes`: gives back what is too much. For a message larger than what was taken it
    /// takes what is left without waiting, since the bytes are in memory already.
    pub(super) async fn settle(&mut self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        if bytes <= self.bytes {
            self.credits.give(self.bytes - bytes);
            self.bytes = bytes;
        } else {
            let more = (bytes - self.bytes).min(u32::try_from(self.credits.left()).unwrap_or(u32::MAX));
            self.credits.take(more).await;
            self.bytes += more;
        }
    }

    /// Splits `bytes` of it off, or what there is.
    pub(super) fn split(&mut self, bytes: usize) -> Self {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.bytes);
        self.bytes -= bytes;
        Self { credits: self.credits.clone(), bytes }
    }

    /// Hands it over to a chunk.
    pub(super) fn hand_over(mut self) -> u32 {
        std::mem::take(&mut self.bytes)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.credits.give(self.bytes);
        }
    }
}
