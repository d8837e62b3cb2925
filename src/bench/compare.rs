//! `etl-stream bench compare`: whether B is worse than A, and whether that can be told at all.
//!
//! ```text
//! A, B ──by scenario and metric──> ratio, its interval, A's noise floor ──> regression | improvement | no difference
//! ```
//! # Guarantees
//! A difference is one only when the interval of the ratio does not hold 1 and the ratio is beyond what A differs from itself.
//! Reports that do not measure the same thing are refused.

use super::report::{Better, METRICS, Measured, Metric, Report};
use super::{BENCH_REPORT, resample};
use crate::CodedError;
use serde::Serialize;

/// Runs below which a difference cannot be told.
const FEWEST: usize = 5;

/// What a comparison says of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// B is worse.
    Regression,
    /// B is better.
    Improvement,
    /// It cannot be told apart from noise.
    NoDifference,
}

impl Verdict {
    /// For people.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Regression => "regression",
            Self::Improvement => "improvement",
            Self::NoDifference => "no difference",
        }
    }
}

/// One metric of one scenario.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// What was measured.
    pub title: String,
    /// The metric.
    pub metric: &'static str,
    /// Medians of A and B.
    pub medians: (f64, f64),
    /// B's median over A's; run by run where they are paired.
    pub ratio: f64,
    /// Where the ratio lies, with 95 % confidence.
    pub interval: (f64, f64),
    /// How far A seems to differ from itself, as a share.
    pub noise_floor: f64,
    /// What it comes to.
    pub verdict: Verdict,
}

fn refused(message: String, hint: &str) -> CodedError {
    CodedError::definite(BENCH_REPORT, message).hint(hint)
}

/// Compares B with A. `paired`: run n of A and of B were made one after the other. `force`: whatever differs between the
/// machines and however few runs there are.
///
/// # Errors
/// `BEN0003` when they cannot be compared.
pub fn compare(a: &Report, b: &Report, paired: bool, force: bool) -> Result<Vec<Comparison>, CodedError> {
    if !force && (&a.machine, &a.build) != (&b.machine, &b.build) {
        return Err(refused("the reports are of different machines or builds".into(), "run both on one machine, or use --force"));
    }
    let mut found = Vec::new();
    for before in &a.results {
        let Some(after) = b.results.iter().find(|after| same(before, after)) else { continue };
        for metric in &METRICS {
            found.extend(one(before, after, metric, paired, force)?);
        }
    }
    if found.is_empty() {
        return Err(refused(
            "the reports have nothing in common that can be compared".into(),
            "they need the same scenario, source, sink, mode, rate, rows, seed and workers, and valid runs",
        ));
    }
    Ok(found)
}

/// Whether two results are of the same thing.
fn same(a: &Measured, b: &Measured) -> bool {
    let of = |m: &Measured| (m.title(), m.rows, m.seed, m.workers);
    of(a) == of(b)
}

fn one(a: &Measured, b: &Measured, metric: &Metric, paired: bool, force: bool) -> Result<Option<Comparison>, CodedError> {
    let (left, right) = (a.values(metric), b.values(metric));
    if left.is_empty() && right.is_empty() {
        return Ok(None);
    }
    if !force && (left.len() < FEWEST || right.len() < FEWEST) {
        let message = format!("{}: {} and {} runs have {}", a.title(), left.len(), right.len(), metric.name);
        return Err(refused(message, "make at least 5 valid runs of each with --runs, or use --force"));
    }
    if paired && left.len() != right.len() {
        let message = format!("{}: {} and {} runs cannot be paired", a.title(), left.len(), right.len());
        return Err(refused(message, "make as many runs of each, alternated, or leave --paired out"));
    }
    let medians = (resample::median(&left), resample::median(&right));
    let interval = if paired { resample::paired(&left, &right) } else { resample::ratio(&left, &right) };
    let ((Some(before), Some(after)), Some(interval)) = (medians, interval) else { return Ok(None) };
    let ratios: Vec<f64> = left.iter().zip(&right).map(|(a, b)| b / a).collect();
    let ratio = resample::median(&ratios).filter(|_| paired).unwrap_or(after / before);
    // With so few runs that A has no halves, only the interval decides.
    let noise_floor = resample::floor(&left).unwrap_or(0.0);
    Ok(Some(Comparison {
        title: a.title(),
        metric: metric.name,
        medians: (before, after),
        ratio,
        interval,
        noise_floor,
        verdict: verdict(ratio, interval, noise_floor, metric.better),
    }))
}

fn verdict(ratio: f64, (low, high): (f64, f64), floor: f64, better: Better) -> Verdict {
    let (higher, lower) = (low > 1.0 && ratio - 1.0 > floor, high < 1.0 && 1.0 - ratio > floor);
    match better {
        Better::Lower if higher => Verdict::Regression,
        Better::Lower if lower => Verdict::Improvement,
        Better::Higher if higher => Verdict::Improvement,
        Better::Higher if lower => Verdict::Regression,
        _ => Verdict::NoDifference,
    }
}
