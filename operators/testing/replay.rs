//! Replays a fuzz target's corpus: each file as it is, then mutations of all of them, the same on every run.
//!
//! `FUZZ_SEED` changes the mutations and `FUZZ_RUNS` their number. A failure prints the input in hexadecimal.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

/// Mutations of one target when nothing says otherwise.
const RUNS: u64 = 2_000;
/// The longest input made.
const LONGEST: usize = 4_096;
/// Bytes that parsers have opinions about.
const TELLING: &[u8] = b"\0\x01\x7f\x80\xff\n \"'\\{}[]():;,=%+-./09AEINUTenust";

/// A generator of numbers (SplitMix64): small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

fn mutated(files: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = files[random.below(files.len())].clone();
    for _ in 0..=random.below(6) {
        let at = random.below(bytes.len() + 1);
        let length = random.below(9).min(bytes.len() - at);
        match random.below(7) {
            0 => drop(bytes.drain(at..at + length)),
            1 => bytes.insert(at, TELLING[random.below(TELLING.len())]),
            2 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            3 if at < bytes.len() => bytes[at] = TELLING[random.below(TELLING.len())],
            4 => {
                let again = bytes[at..at + length].repeat(1 + random.below(20));
                bytes.splice(at..at, again);
            }
            5 => {
                let other = &files[random.below(files.len())];
                let from = random.below(other.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            _ => {
                let value = [0_u32, 1, 0xffff, 0x7fff_ffff, 0x8000_0000, u32::MAX][random.below(6)];
                let width = [1, 2, 4][random.below(3)];
                for (to, byte) in bytes.iter_mut().skip(at).zip(&value.to_be_bytes()[4 - width..]) {
                    *to = *byte;
                }
            }
        }
    }
    bytes.truncate(LONGEST);
    bytes
}

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Runs `target` on every file of the folder, and on mutations of them.
///
/// # Panics
/// When the target does, or the folder holds no file.
pub fn replay(folder: &Path, target: fn(&[u8])) {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("the corpus {} was not read: {e}", folder.display()));
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    let files: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).expect("a file of the corpus is read")).collect();
    assert!(!files.is_empty(), "the corpus {} is empty", folder.display());
    let run = |what: &str, bytes: &[u8]| {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(bytes))) {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            eprintln!("{what}: {hex}");
            resume_unwind(panic);
        }
    };
    for (path, bytes) in paths.iter().zip(&files) {
        run(&path.display().to_string(), bytes);
    }
    let seed = setting("FUZZ_SEED", 1);
    eprintln!("FUZZ_SEED={seed}");
    let mut random = Random(seed);
    for at in 0..setting("FUZZ_RUNS", RUNS) {
        run(&format!("mutation {at}"), &mutated(&files, &mut random));
    }
}
