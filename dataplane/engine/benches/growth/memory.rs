//! What more of everything costs in memory: what a server's process has grown by. The kernel's own part, for sockets,
//! is not in it.

use crate::cell::{Cell, Protocol};
use crate::child::Role;
use crate::plane::Size;

/// Memory of one engine's servers as they came to their cells, bytes.
#[derive(Default)]
pub struct Memory {
    /// Of the usual server and of the one with the most keys, before anyone asked.
    usual: u64,
    most_keys: (usize, u64),
    /// By how much the usual server grew when so many connections came and all asked.
    connections: Vec<(usize, usize, u64)>,
}

impl Memory {
    /// Notes the memory of the cell's server before its clients came and after they had asked for the first time.
    pub fn note(&mut self, cell: Cell, before: u64, after: u64) {
        if cell.place.role == Role::Floor || cell.place.fed || cell.clients.protocol == Protocol::Udp {
            return;
        }
        let Size { keys, assets } = cell.place.size;
        if keys > self.most_keys.0.max(1) {
            self.most_keys = (keys, before);
        }
        if (Size { keys, assets }) == Size::USUAL {
            if self.usual == 0 {
                self.usual = before;
            }
            self.connections.push((cell.clients.count, cell.at_once, after.saturating_sub(before)));
        }
    }

    /// How many keys there were at most, and bytes of each; `None` where only one was.
    pub fn of_keys(&self) -> Option<(usize, f64)> {
        let (keys, bytes) = self.most_keys;
        (keys > 0).then(|| (keys, bytes.saturating_sub(self.usual) as f64 / keys as f64))
    }

    /// How many connections there were at most, and by how many bytes each made the server grow; of those that asked all
    /// at once, or of those that took turns.
    pub fn of_connections(&self, is_all_at_once: bool) -> Option<(usize, f64)> {
        let kind = |entry: &&(usize, usize, u64)| (entry.0 == entry.1) == is_all_at_once;
        let most = self.connections.iter().filter(kind).max_by_key(|entry| entry.0);
        most.map(|&(count, _, bytes)| (count, bytes as f64 / count as f64))
    }
}
