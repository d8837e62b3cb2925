//! Whether a look for new tables could find anything.
//!
//! Nothing changes in a catalog without the server's log moving. Where a look left nothing to do, and the server has since
//! said that its log ends where it did then, the next is put off until it ends elsewhere: of thousands of sources that have
//! nothing to say, none asks.

/// What is known of the log since the last look.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// Where the log ended before the last look, if that left nothing to do.
    at: Option<u64>,
    /// Where it ended when the server last said so, after that look.
    heard: Option<u64>,
    /// Whether a look was put off.
    owed: bool,
}

impl Settled {
    /// A look begins.
    pub(super) fn begin(&mut self) {
        *self = Self::default();
    }

    /// A look left nothing to do; the log ended there before it.
    pub(super) fn settle(&mut self, position: u64) {
        self.at = Some(position);
    }

    /// The server has sent all up to there; gives whether a look that was put off is due now.
    pub(super) fn hear(&mut self, position: u64) -> bool {
        self.heard = Some(position);
        self.heard != self.at && std::mem::take(&mut self.owed)
    }

    /// Whether a look that is due can be put off.
    pub(super) fn put_off(&mut self) -> bool {
        self.owed = self.at.is_some() && self.heard == self.at;
        self.owed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_is_put_off_until_the_log_moves() {
        let mut settled = Settled::default();
        assert!(!settled.put_off(), "nothing was looked at");
        settled.begin();
        assert!(!settled.hear(70));
        settled.settle(70);
        assert!(settled.put_off(), "said while the look went on, and still so");
        assert!(!settled.hear(70));
        assert!(settled.put_off());
        assert!(settled.hear(80), "it moved");
        assert!(!settled.hear(90), "the look is due already");
        settled.begin();
        settled.settle(90);
        assert!(!settled.put_off(), "the server has not said anything since");
        assert!(!settled.hear(90));
        assert!(settled.put_off());
        settled.begin();
        assert!(!settled.hear(90));
        assert!(!settled.put_off(), "the look left something to do");
    }
}
