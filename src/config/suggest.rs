//! "Did you mean": the nearest of the names that would have been right.

/// How alike two names must be.
const ALIKE: f64 = 0.8;
/// The most names listed in full.
const LISTED: usize = 12;

/// The name most like `word`.
pub(crate) fn nearest<'n>(word: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let mut best = None;
    for name in names {
        // Jaro-Winkler misses swapped letters in short words, such as `evn`.
        let swapped = word.len() > 2 && strsim::damerau_levenshtein(word, name) == 1;
        let alike = strsim::jaro_winkler(word, name).max(if swapped { ALIKE + 0.01 } else { 0.0 });
        if alike > best.map_or(ALIKE, |(b, _)| b) {
            best = Some((alike, name));
        }
    }
    best.map(|(_, name)| name)
}

/// The help for a wrong name: the nearest, and all of them when they are few.
pub(crate) fn help<'n>(word: &str, names: impl IntoIterator<Item = &'n str>) -> Option<String> {
    let names: Vec<&str> = names.into_iter().collect();
    let near = nearest(word, names.iter().copied()).map(|name| format!("did you mean `{name}`?"));
    let list = (!names.is_empty() && names.len() <= LISTED).then(|| format!("valid here: {}", names.join(", ")));
    match (near, list) {
        (Some(near), Some(list)) => Some(format!("{near} {list}")),
        (near, list) => near.or(list),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (word, names, near) in [
            ("minumum", vec!["maximum", "minimum"], Some("minimum")),
            ("shp", vec!["shop"], Some("shop")),
            ("evn", vec!["file", "env"], Some("env")),
            ("zzz", vec!["shop"], None),
            ("", vec!["shop"], None),
        ] {
            assert_eq!(nearest(word, names), near, "{word}");
        }
        assert_eq!(help("shp", ["shop", "till"]).as_deref(), Some("did you mean `shop`? valid here: shop, till"));
        assert_eq!(help("x", []), None);
    }
}
