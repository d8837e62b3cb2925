//! The process's connections to PostgreSQL servers: a budget, and connections that are kept between two uses.
//!
//! ```text
//! permit ──connect──> in use ──keep──> kept ──take──> in use
//!   ^                    │               │
//!   └──── given back ────┴───────────────┘  kept ones are closed, the least recently needed first, as soon as
//!         when the connection is closed     somebody waits for their place, and when nobody needed them for a minute
//! ```
//!
//! # Guarantees
//! - Connections for statements are never more than `total`, nor than `per_server` to one server. They count from before
//!   one is opened until its socket is closed here; the server's process ends a moment later.
//! - Permits are given in the order they were asked for. Those that belong together are asked for at once: whoever held
//!   one while waiting for another could wait for ever.
//! - What is held for long, as a snapshot's connections are, leaves a quarter of each limit to what is done in a moment: a
//!   stream that must look something up does not wait for other sources' snapshots.
//! - Replication connections, one for each slot, are counted and not limited.

use super::kept::Kept;
use super::log_ends::LogEnds;
use schemars::JsonSchema;
use serde::Deserialize;
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many connections for statements the process may have: monitors' checks, and what else draws from the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ConnectionSettings {
    /// To all servers together.
    #[schemars(range(min = 1, max = 100_000))]
    pub total: u32,
    /// To one server.
    #[schemars(range(min = 1, max = 100_000))]
    pub per_server: u32,
}

impl Default for ConnectionSettings {
    fn default() -> Self {
        Self { total: 100, per_server: 16 }
    }
}

impl ConnectionSettings {
    /// The settings that are out of range, by name.
    #[must_use]
    pub fn out_of_range(&self) -> Vec<&'static str> {
        let allowed = 1..=100_000;
        [("total", self.total), ("per_server", self.per_server)].into_iter().filter(|(_, n)| !allowed.contains(n)).map(|(n, _)| n).collect()
    }
}

/// The right to one connection; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    _server: OwnedSemaphorePermit,
    _total: OwnedSemaphorePermit,
    /// Of what may be held for long.
    _held: Option<[OwnedSemaphorePermit; 2]>,
}

/// A replication connection that is counted while this lives.
#[derive(Debug)]
pub struct Replicating {
    server: Arc<str>,
    budget: Arc<Connections>,
}

impl Drop for Replicating {
    fn drop(&mut self) {
        if let Some(server) = self.budget.lock().servers.get_mut(&self.server) {
            server.replicating = server.replicating.saturating_sub(1);
        }
    }
}

/// Connections to one server, as they are now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerConnections {
    /// Open for statements or about to be.
    pub open: usize,
    /// Of those, kept and not in use.
    pub kept: usize,
    /// Open for replication.
    pub replicating: usize,
    /// How many wait for a permit.
    pub waiting: usize,
}

struct Server {
    permits: Arc<Semaphore>,
    /// For those that are held for long, in front of `permits`.
    to_hold: Arc<Semaphore>,
    waiting: usize,
    replicating: usize,
}

#[derive(Default)]
struct Inner {
    servers: BTreeMap<Arc<str>, Server>,
    kept: Kept,
    /// How many wait for a permit of the total.
    waiting: usize,
}

/// The budget of a process.
pub struct Connections {
    limits: ConnectionSettings,
    total: Arc<Semaphore>,
    to_hold: Arc<Semaphore>,
    inner: Mutex<Inner>,
    log_ends: LogEnds,
}

impl std::fmt::Debug for Connections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connections({:?})", self.limits)
    }
}

/// A wait that ends also when it is given up.
struct Waiting<'a> {
    budget: &'a Connections,
    /// For a permit of one server; else of the total.
    server: Option<&'a str>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut inner = self.budget.lock();
        match self.server {
            Some(server) => {
                if let Some(server) = inner.servers.get_mut(server) {
                    server.waiting -= 1;
                }
            }
            None => inner.waiting -= 1,
        }
    }
}

impl Connections {
    /// A budget.
    #[must_use]
    pub fn new(limits: ConnectionSettings) -> Arc<Self> {
        Arc::new(Self {
            limits,
            total: Arc::new(Semaphore::new(limits.total as usize)),
            to_hold: Arc::new(Semaphore::new(holdable(limits.total))),
            inner: Mutex::default(),
            log_ends: LogEnds::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn server<'a>(&self, inner: &'a mut Inner, server: &str) -> &'a mut Server {
        let limit = self.limits.per_server as usize;
        if !inner.servers.contains_key(server) {
            let to_hold = Arc::new(Semaphore::new(holdable(self.limits.per_server)));
            inner.servers.insert(server.into(), Server { permits: Arc::new(Semaphore::new(limit)), to_hold, waiting: 0, replicating: 0 });
        }
        inner.servers.get_mut(server).expect("it was made just above")
    }

    /// Waits for `count` permits of a server, all at once, and no more than the limits allow. Cancel-safe.
    ///
    /// # Panics
    /// Never: the semaphores are not closed.
    pub async fn permits(&self, server: &str, count: u32) -> Vec<Permit> {
        let count = count.clamp(1, self.limits.total.min(self.limits.per_server));
        let own = Arc::clone(&self.server(&mut self.lock(), server).permits);
        let own = match Arc::clone(&own).try_acquire_many_owned(count) {
            Ok(permits) => permits,
            Err(_) => {
                let _waiting = self.wait(Some(server), count);
                own.acquire_many_owned(count).await.expect("the semaphore is never closed")
            }
        };
        let total = match Arc::clone(&self.total).try_acquire_many_owned(count) {
            Ok(permits) => permits,
            Err(_) => {
                let _waiting = self.wait(None, count);
                Arc::clone(&self.total).acquire_many_owned(count).await.expect("the semaphore is never closed")
            }
        };
        split(own, total, count)
    }

    /// Waits for `count` permits that will be held for long, all at once. Cancel-safe.
    ///
    /// # Panics
    /// Never: the semaphores are not closed.
    pub async fn permits_to_hold(&self, server: &str, count: u32) -> Vec<Permit> {
        let most = holdable(self.limits.total.min(self.limits.per_server)) as u32;
        let count = count.clamp(1, most.max(1));
        let own = Arc::clone(&self.server(&mut self.lock(), server).to_hold);
        let mut own = own.acquire_many_owned(count).await.expect("the semaphore is never closed");
        let mut total = Arc::clone(&self.to_hold).acquire_many_owned(count).await.expect("the semaphore is never closed");
        let mut permits = self.permits(server, count).await;
        for permit in &mut permits {
            permit._held = own.split(1).zip(total.split(1)).map(|(own, total)| [own, total]);
        }
        permits
    }

    /// A permit to be held for long, if one is free now and nobody waits.
    #[must_use]
    pub fn try_permit_to_hold(&self, server: &str) -> Option<Permit> {
        let own = Arc::clone(&self.server(&mut self.lock(), server).to_hold).try_acquire_owned().ok()?;
        let total = Arc::clone(&self.to_hold).try_acquire_owned().ok()?;
        let permit = self.try_permit(server)?;
        Some(Permit { _held: Some([own, total]), ..permit })
    }

    /// A permit, if one is free now and nobody waits.
    #[must_use]
    pub fn try_permit(&self, server: &str) -> Option<Permit> {
        let own = Arc::clone(&self.server(&mut self.lock(), server).permits);
        let own = own.try_acquire_owned().ok()?;
        let total = Arc::clone(&self.total).try_acquire_owned().ok()?;
        Some(Permit { _server: own, _total: total, _held: None })
    }

    /// Notes a wait, and closes kept connections to end it.
    fn wait<'a>(&'a self, server: Option<&'a str>, count: u32) -> Waiting<'a> {
        let mut inner = self.lock();
        match server {
            Some(name) => self.server(&mut inner, name).waiting += 1,
            None => inner.waiting += 1,
        }
        let closed = inner.kept.oldest(server, count as usize);
        drop(inner);
        drop(closed);
        Waiting { budget: self, server }
    }

    /// Keeps a connection, whose permit goes when it is dropped, until it is taken again or its place is needed.
    pub fn keep(&self, server: &str, key: &str, connection: Box<dyn Any + Send>) {
        let mut inner = self.lock();
        if inner.waiting > 0 || inner.servers.get(server).is_some_and(|server| server.waiting > 0) {
            drop(inner);
            drop(connection);
            return;
        }
        let closed = inner.kept.keep(server.into(), key.to_owned(), connection);
        drop(inner);
        drop(closed);
    }

    /// Takes a kept connection of this key.
    #[must_use]
    pub fn take<C: Any + Send>(&self, key: &str) -> Option<C> {
        self.lock().kept.take(key)
    }

    /// Closes the kept connections of this key: the server may be another by now.
    pub fn forget(&self, key: &str) {
        let closed = self.lock().kept.of_key(key);
        drop(closed);
    }

    /// Closes every kept connection.
    pub fn close_kept(&self) {
        let closed = std::mem::take(&mut self.lock().kept);
        drop(closed);
    }

    /// Where servers' logs end: what one connection has asked, others need not.
    #[must_use]
    pub fn log_ends(&self) -> &LogEnds {
        &self.log_ends
    }

    /// Counts a replication connection for as long as what comes back lives.
    #[must_use]
    pub fn replicating(self: &Arc<Self>, server: &str) -> Replicating {
        self.server(&mut self.lock(), server).replicating += 1;
        Replicating { server: server.into(), budget: Arc::clone(self) }
    }

    /// The limits.
    #[must_use]
    pub fn limits(&self) -> ConnectionSettings {
        self.limits
    }

    /// Permits of the total that are given.
    #[must_use]
    pub fn open(&self) -> usize {
        (self.limits.total as usize).saturating_sub(self.total.available_permits())
    }

    /// Every server that has been connected to.
    #[must_use]
    pub fn servers(&self) -> BTreeMap<Arc<str>, ServerConnections> {
        let inner = self.lock();
        let mut found: BTreeMap<Arc<str>, ServerConnections> = inner
            .servers
            .iter()
            .map(|(name, server)| {
                let open = (self.limits.per_server as usize).saturating_sub(server.permits.available_permits());
                (Arc::clone(name), ServerConnections { open, kept: 0, replicating: server.replicating, waiting: server.waiting })
            })
            .collect();
        for kept in inner.kept.iter() {
            found.entry(Arc::clone(&kept.server)).or_default().kept += 1;
        }
        found
    }
}

/// How many of so many may be held for long: a snapshot's two at least, where there are as many.
fn holdable(limit: u32) -> usize {
    limit.saturating_sub((limit / 4).max(1)).max(limit.min(2)) as usize
}

fn split(mut own: OwnedSemaphorePermit, mut total: OwnedSemaphorePermit, count: u32) -> Vec<Permit> {
    let mut permits = Vec::with_capacity(count as usize);
    for _ in 1..count {
        if let (Some(own), Some(total)) = (own.split(1), total.split(1)) {
            permits.push(Permit { _server: own, _total: total, _held: None });
        }
    }
    permits.push(Permit { _server: own, _total: total, _held: None });
    permits
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    /// A connection: it has its permit, and says that it was closed.
    struct Connection(u32, Option<Permit>, Arc<Mutex<Vec<u32>>>);

    impl Drop for Connection {
        fn drop(&mut self) {
            self.2.lock().unwrap().push(self.0);
            self.1 = None;
        }
    }

    #[test]
    fn kept_connections_make_room_oldest_first() {
        let budget = Connections::new(ConnectionSettings { total: 3, per_server: 2 });
        let closed = Arc::default();
        let open = |server: &str, id: u32| {
            let permit = budget.permits(server, 1).now_or_never().expect("there is room").remove(0);
            Connection(id, Some(permit), Arc::clone(&closed))
        };
        for (id, server) in [(1, "a"), (2, "b"), (3, "c")] {
            budget.keep(server, server, Box::new(open(server, id)));
        }
        assert_eq!(budget.open(), 3);
        // Needed again: now "b" is the one that was not needed longest.
        let a = budget.take::<Connection>("a").expect("it was kept");
        budget.keep("a", "a", Box::new(a));
        let d = open("d", 4);
        assert_eq!(*closed.lock().unwrap(), [2]);
        assert!(budget.take::<Connection>("b").is_none());
        budget.forget("b");
        assert_eq!(*closed.lock().unwrap(), [2]);
        // A server's own limit closes its own kept ones only.
        let second = open("a", 5);
        assert_eq!(*closed.lock().unwrap(), [2, 3]);
        drop((d, second));
        assert_eq!(budget.open(), 1);
        budget.close_kept();
        assert_eq!(budget.open(), 0);
    }

    #[test]
    fn what_somebody_waits_for_is_not_kept() {
        let budget = Connections::new(ConnectionSettings { total: 1, per_server: 1 });
        let closed = Arc::default();
        let permit = budget.permits("a", 1).now_or_never().expect("there is room").remove(0);
        let connection = Connection(1, Some(permit), Arc::clone(&closed));
        let mut waiting = Box::pin(budget.permits("b", 1));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert_eq!(budget.lock().waiting, 1);
        assert!(budget.try_permit("a").is_none());
        budget.keep("a", "a", Box::new(connection));
        assert_eq!(*closed.lock().unwrap(), [1]);
        assert_eq!(waiting.now_or_never().expect("its place is free").len(), 1);
        assert_eq!((budget.lock().waiting, budget.open()), (0, 0));
    }

    #[test]
    fn a_wait_that_is_given_up_takes_nothing() {
        let budget = Connections::new(ConnectionSettings { total: 2, per_server: 2 });
        let all = budget.permits("a", 9).now_or_never().expect("as many as the limits allow");
        assert_eq!(all.len(), 2);
        for server in ["a", "b"] {
            let mut waiting = Box::pin(budget.permits(server, 1));
            assert!(waiting.as_mut().now_or_never().is_none());
            drop(waiting);
        }
        let waits: usize = budget.servers().values().map(|server| server.waiting).sum();
        assert_eq!((budget.lock().waiting, waits), (0, 0));
        drop(all);
        assert_eq!((budget.open(), budget.permits("b", 2).now_or_never().map(|p| p.len())), (0, Some(2)));
    }

    #[test]
    fn what_is_held_for_long_leaves_room() {
        for (limit, expected) in [(1, 1), (2, 2), (3, 2), (4, 3), (16, 12), (100, 75)] {
            assert_eq!(holdable(limit), expected, "{limit}");
        }
        let budget = Connections::new(ConnectionSettings { total: 100, per_server: 4 });
        let snapshot = budget.permits_to_hold("a", 2).now_or_never().expect("there is room");
        let further = budget.try_permit_to_hold("a").expect("one more may be held");
        assert_eq!((snapshot.len(), budget.try_permit_to_hold("a").is_none()), (2, true));
        assert!(budget.permits_to_hold("a", 2).now_or_never().is_none());
        let look = budget.permits("a", 1).now_or_never().expect("the last place is for those who look something up");
        drop(further);
        assert!(budget.try_permit_to_hold("a").is_some());
        drop((look, snapshot));
        assert_eq!((budget.open(), budget.to_hold.available_permits()), (0, 75));
    }

    #[test]
    fn replication_is_counted() {
        let budget = Connections::new(ConnectionSettings::default());
        let (one, two) = (budget.replicating("a"), budget.replicating("a"));
        assert_eq!(budget.servers()["a"], ServerConnections { replicating: 2, ..ServerConnections::default() });
        drop((one, two));
        assert_eq!(budget.servers()["a"].replicating, 0);
    }
}
