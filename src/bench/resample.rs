//! Intervals without assumptions: what a number could have been, had other runs of the same kind been drawn (bootstrap).

/// Samples drawn.
const DRAWS: usize = 10_000;
/// What lies outside the interval at either side.
const TAIL: f64 = 0.025;

/// Random numbers that are the same each time (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) % end.max(1) as u64) as usize
    }
}

/// The median; nothing of nothing.
pub(super) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    Some(if sorted.len().is_multiple_of(2) { f64::midpoint(*sorted.get(middle - 1)?, upper) } else { upper })
}

/// Where the middle 95 % of many draws lie.
fn interval(mut draws: Vec<f64>) -> Option<(f64, f64)> {
    draws.retain(|draw| draw.is_finite());
    draws.sort_by(f64::total_cmp);
    let last = draws.len().checked_sub(1)?;
    let at = |share: f64| draws.get((share * last as f64).round() as usize).copied();
    Some((at(TAIL)?, at(1.0 - TAIL)?))
}

fn drawn(values: &[f64], random: &mut Random) -> Vec<f64> {
    (0..values.len()).filter_map(|_| values.get(random.below(values.len())).copied()).collect()
}

/// The interval of the ratio of medians, `b` to `a`.
pub(super) fn ratio(a: &[f64], b: &[f64]) -> Option<(f64, f64)> {
    let mut random = Random(1);
    let draws = (0..DRAWS).filter_map(|_| Some(median(&drawn(b, &mut random))? / median(&drawn(a, &mut random))?));
    interval(draws.collect())
}

/// The interval of the median of ratios, run by run, where run and run belong together.
pub(super) fn paired(a: &[f64], b: &[f64]) -> Option<(f64, f64)> {
    let ratios: Vec<f64> = a.iter().zip(b).map(|(a, b)| b / a).collect();
    let mut random = Random(1);
    interval((0..DRAWS).filter_map(|_| median(&drawn(&ratios, &mut random))).collect())
}

/// How far the same thing seems to differ from itself: the runs are split into halves at random, again and again, and the
/// ratio of the halves' medians is looked at. Nothing with fewer than four runs.
pub(super) fn floor(values: &[f64]) -> Option<f64> {
    if values.len() < 4 {
        return None;
    }
    let mut random = Random(2);
    let mut draws = Vec::with_capacity(DRAWS);
    for _ in 0..DRAWS {
        let mut shuffled = values.to_vec();
        for at in (1..shuffled.len()).rev() {
            shuffled.swap(at, random.below(at + 1));
        }
        let (left, right) = shuffled.split_at(shuffled.len() / 2);
        draws.push(median(right)? / median(left)?);
    }
    let (low, high) = interval(draws)?;
    Some((high - 1.0).max(1.0 - low).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        for (values, expected) in [(vec![], None), (vec![3.0], Some(3.0)), (vec![9.0, 1.0, 5.0], Some(5.0)), (vec![4.0, 1.0], Some(2.5))] {
            assert_eq!(median(&values), expected);
        }
    }

    #[test]
    fn intervals_hold_the_ratio_and_tighten_with_less_noise() {
        let noisy: Vec<f64> = (0..12).map(|n| 100.0 + f64::from(n * 7 % 12) - 6.0).collect();
        let slower: Vec<f64> = noisy.iter().map(|value| value * 1.5).collect();
        let (low, high) = ratio(&noisy, &slower).unwrap();
        assert!(low < 1.5 && 1.5 < high && low > 1.35 && high < 1.65, "{low} {high}");
        // Run by run there is no noise at all.
        let (low, high) = paired(&noisy, &slower).unwrap();
        assert!((low - 1.5).abs() < 1e-9 && (high - 1.5).abs() < 1e-9);
        assert!(ratio(&[1.0; 5], &[1.0; 5]).is_some_and(|(low, high)| low == 1.0 && high == 1.0));
        let (floor_of_noise, floor_of_none) = (floor(&noisy).unwrap(), floor(&[5.0; 8]).unwrap());
        assert!(floor_of_noise > 0.01 && floor_of_noise < 0.2 && floor_of_none == 0.0, "{floor_of_noise}");
        assert_eq!(floor(&[1.0, 2.0, 3.0]), None);
        assert_eq!(ratio(&[], &[1.0]), None);
    }
}
