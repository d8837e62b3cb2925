//! What each pipeline of the process has to itself: its name, its state, the replication slots of its sources.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Who has what.
#[derive(Default)]
pub(super) struct Claims(BTreeMap<String, PathBuf>);

impl Claims {
    /// What one of these stands against, in words.
    pub(super) fn conflict(&self, file: &Path, claims: &BTreeSet<String>) -> Option<String> {
        let (claim, other) = claims.iter().filter_map(|claim| self.0.get_key_value(claim)).find(|(_, owner)| *owner != file)?;
        Some(format!("{claim} belongs to \"{}\" already", other.display()))
    }

    /// They belong to a file from here on.
    pub(super) fn add(&mut self, file: &Path, claims: &BTreeSet<String>) {
        self.0.extend(claims.iter().map(|claim| (claim.clone(), file.to_owned())));
    }

    /// A file has these and no others any more.
    pub(super) fn only(&mut self, file: &Path, claims: &BTreeSet<String>) {
        self.0.retain(|claim, owner| owner != file || claims.contains(claim));
    }

    /// A file has none any more.
    pub(super) fn release(&mut self, file: &Path) {
        self.0.retain(|_, owner| owner != file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_came_first_has_it() {
        let set = |claims: &[&str]| claims.iter().map(|claim| (*claim).to_owned()).collect::<BTreeSet<_>>();
        let (a, b) = (Path::new("a.yaml"), Path::new("b.yaml"));
        let mut claims = Claims::default();
        claims.add(a, &set(&["slot x", "name p"]));
        assert_eq!(claims.conflict(a, &set(&["slot x"])), None);
        assert_eq!(claims.conflict(b, &set(&["slot x", "name q"])), Some("slot x belongs to \"a.yaml\" already".into()));
        claims.only(a, &set(&["name p"]));
        assert_eq!(claims.conflict(b, &set(&["slot x"])), None);
        claims.release(a);
        assert_eq!(claims.conflict(b, &set(&["name p"])), None);
    }
}
