//! Sends each table's items to the worker that owns it.

use etl_stream_operators::contract::{RawItem, RawItems};
use timely::communication::Push;
use timely::dataflow::channels::Message;
use timely::dataflow::channels::pushers::exchange::Distributor;
use timely::progress::Stamp;

/// Moves whole items, never rows. A table's items go to one worker, in order.
pub(crate) struct ByTable {
    parts: Vec<Vec<RawItem>>,
}

impl ByTable {
    /// For so many workers.
    pub(crate) fn new(workers: usize) -> Self {
        Self { parts: (0..workers).map(|_| Vec::new()).collect() }
    }
}

impl Distributor<RawItems> for ByTable {
    fn partition<T: Clone, P: Push<Message<T, RawItems>>>(&mut self, items: &mut RawItems, stamp: &Stamp<T>, pushers: &mut [P]) {
        for item in items.0.drain(..) {
            let worker = (item.table().route() % self.parts.len() as u64) as usize;
            self.parts[worker].push(item);
        }
        for (part, pusher) in self.parts.iter_mut().zip(pushers) {
            if !part.is_empty() {
                Message::push_at(&mut RawItems(std::mem::take(part)), stamp.clone(), pusher);
            }
        }
    }

    fn flush<T: Clone, P: Push<Message<T, RawItems>>>(&mut self, _: &Stamp<T>, _: &mut [P]) {}
}
