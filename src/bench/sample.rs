//! What the process has used so far: time, CPU, allocations, memory.

use super::allocations;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A look at the process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) at: Instant,
    /// User and system time of all threads.
    pub(super) cpu: Duration,
    pub(super) allocations: Option<u64>,
}

impl Sample {
    /// Looks now.
    pub(super) fn now() -> Self {
        Self { at: Instant::now(), cpu: cpu(), allocations: allocations::counted() }
    }
}

/// `getrusage(RUSAGE_SELF)`.
fn cpu() -> Duration {
    #[expect(unsafe_code, reason = "the one call that gives the CPU of all threads in microseconds")]
    // SAFETY: the structure is plain numbers, for which zeros are a value, and the call writes nothing beyond it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    let time = |value: libc::timeval| {
        let (seconds, micros) = (u64::try_from(value.tv_sec).unwrap_or(0), u64::try_from(value.tv_usec).unwrap_or(0));
        Duration::from_micros(seconds * 1_000_000 + micros)
    };
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// CPU of this thread.
fn thread_cpu() -> Duration {
    #[expect(unsafe_code, reason = "the standard library has no clock of a thread's CPU")]
    // SAFETY: the structure is plain numbers, for which zeros are a value, and the call writes nothing beyond it.
    let time = unsafe {
        let mut time: libc::timespec = std::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time);
        time
    };
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// CPU that something took, from however many threads.
#[derive(Clone, Debug, Default)]
pub(super) struct Spent(Arc<AtomicU64>);

impl Spent {
    /// The CPU so far.
    pub(super) fn total(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }

    /// Does something, and adds the CPU it takes.
    pub(super) fn on<T>(&self, work: impl FnOnce() -> T) -> T {
        let before = thread_cpu();
        let done = work();
        let spent = thread_cpu().saturating_sub(before);
        self.0.fetch_add(u64::try_from(spent.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        done
    }

    /// Runs a task, and adds the CPU that its own polls take.
    pub(super) async fn of<F: Future>(&self, task: F) -> F::Output {
        let mut task = std::pin::pin!(task);
        std::future::poll_fn(|cx| self.on(|| task.as_mut().poll(cx))).await
    }
}

/// Forgets the peak of memory so far, where the kernel allows it: Linux does for the process itself.
pub(super) fn reset_peak() {
    // 5: the peak resident set size (proc(5), `clear_refs`).
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// The peak of resident memory, in bytes.
pub(super) fn peak_rss() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_and_memory_are_seen() {
        let before = Sample::now();
        reset_peak();
        let low = peak_rss().unwrap();
        // Written, so that the pages are there.
        let block = std::hint::black_box(vec![1_u8; 64 << 20]);
        while cpu() < before.cpu + Duration::from_millis(20) {
            std::hint::black_box(block.iter().map(|byte| u64::from(*byte)).sum::<u64>());
        }
        assert!(peak_rss().unwrap() >= low + (60 << 20));
        assert!(Sample::now().at > before.at);
    }

    #[tokio::test]
    async fn a_task_pays_for_its_polls_and_not_for_its_waits() {
        let (busy, idle) = (Spent::default(), Spent::default());
        busy.of(async {
            let begun = thread_cpu();
            while thread_cpu() < begun + Duration::from_millis(20) {
                std::hint::spin_loop();
            }
        })
        .await;
        let waited = tokio::sync::oneshot::channel::<()>();
        let (_, _) = tokio::join!(idle.of(waited.1), async {
            let begun = thread_cpu();
            while thread_cpu() < begun + Duration::from_millis(20) {
                std::hint::spin_loop();
            }
            drop(waited.0);
        });
        assert!(busy.total() >= Duration::from_millis(20));
        assert!(idle.total() < Duration::from_millis(20));
    }
}
