//! When each request is due, decided before anything is sent.
//!
//! All connections of a protocol share one smooth schedule: turn number n is due n turns after the start and belongs to
//! connection n modulo their number, so each connection has an even rhythm of its own and no two are due together. A request
//! never moves to another connection: what a slow server owes stays with that server, and nothing that one connection
//! does changes when another's request is due. A turn is one request, or one train of datagrams, all due at once.
//! Arithmetic only: no clock is read here, and nothing is remembered.

/// One second.
pub(crate) const SECOND_NS: u64 = 1_000_000_000;

/// The schedule of one protocol in one level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// When turn 0 is due, on the clock of the caller.
    pub start_ns: u64,
    /// Requests a second over all connections, at least 1.
    pub rate: u64,
    /// Connections that take turns, at least 1.
    pub connections: u64,
    /// Requests of one turn, at least 1.
    pub train: u64,
}

impl Schedule {
    /// When request number `request` of connection number `connection` is due, ns.
    #[inline]
    #[must_use]
    pub fn due_ns(&self, connection: u64, request: u64) -> u64 {
        let turn = request / self.train * self.connections + connection;
        self.turn_ns(turn)
    }

    /// When turn number `turn` over all connections is due, ns.
    #[inline]
    #[must_use]
    pub fn turn_ns(&self, turn: u64) -> u64 {
        let requests_before = turn.saturating_mul(self.train);
        // The product fits in 64 bits for the first 18 billion requests; the slow division is for those beyond.
        match requests_before.checked_mul(SECOND_NS) {
            Some(product) => self.start_ns.saturating_add(product / self.rate),
            None => {
                let offset_ns = u128::from(requests_before) * u128::from(SECOND_NS) / u128::from(self.rate);
                self.start_ns.saturating_add(u64::try_from(offset_ns).unwrap_or(u64::MAX))
            }
        }
    }

    /// How many requests of connection number `connection` are due before `time_ns`: the number of the first that is not.
    #[must_use]
    pub fn due_before(&self, connection: u64, time_ns: u64) -> u64 {
        let Some(elapsed_ns) = time_ns.checked_sub(self.start_ns).filter(|elapsed_ns| *elapsed_ns > 0) else {
            return 0;
        };
        // Turn n is due before t exactly when n × train × 1e9 < t × rate (whole numbers, times rounded down).
        let turns =
            (u128::from(elapsed_ns) * u128::from(self.rate)).div_ceil(u128::from(self.train) * u128::from(SECOND_NS));
        let turns = u64::try_from(turns).unwrap_or(u64::MAX);
        let own = turns.saturating_sub(connection).div_ceil(self.connections);
        own.saturating_mul(self.train)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every request of a second, as (connection, due), in the order of their times.
    fn walk(schedule: Schedule, until_ns: u64) -> Vec<(u64, u64)> {
        let mut all = Vec::new();
        for connection in 0..schedule.connections {
            let count = schedule.due_before(connection, until_ns);
            all.extend((0..count).map(|request| (schedule.due_ns(connection, request), connection)));
        }
        all.sort_unstable();
        all.into_iter().map(|(due, connection)| (connection, due)).collect()
    }

    #[test]
    fn a_second_holds_exactly_the_rate() {
        for (rate, connections, train) in
            [(1, 1, 1), (10, 3, 1), (1_000, 8, 1), (999, 7, 1), (500_000, 1_024, 1), (6_400, 5, 16), (2_500, 1_024, 1)]
        {
            let schedule = Schedule { start_ns: 77, rate, connections, train };
            assert_eq!(walk(schedule, 77 + SECOND_NS).len() as u64, rate, "{schedule:?}");
            assert_eq!(walk(schedule, 77).len(), 0, "nothing is due before the start");
        }
    }

    #[test]
    fn connections_take_turns_evenly() {
        let schedule = Schedule { start_ns: 0, rate: 1_000, connections: 4, train: 1 };
        let all = walk(schedule, SECOND_NS);
        for (number, (connection, due)) in all.iter().enumerate() {
            assert_eq!((*connection, *due), (number as u64 % 4, number as u64 * 1_000_000));
        }
    }

    #[test]
    fn a_train_is_due_at_once_and_as_many_a_second() {
        let schedule = Schedule { start_ns: 0, rate: 1_600, connections: 2, train: 16 };
        let all = walk(schedule, SECOND_NS);
        for (turn, train) in all.chunks(16).enumerate() {
            assert!(train.iter().all(|one| *one == (turn as u64 % 2, turn as u64 * 10_000_000)), "{train:?}");
        }
    }

    #[test]
    fn what_is_due_before_a_time_is_what_has_an_earlier_time() {
        let schedule = Schedule { start_ns: 5, rate: 7_919, connections: 13, train: 3 };
        for time_ns in [5, 6, 100_000, 1_000_003, 99_999_999, 1_234_567_890] {
            for connection in 0..13 {
                let count = schedule.due_before(connection, time_ns);
                assert!(schedule.due_ns(connection, count) >= time_ns, "{time_ns} {connection}");
                assert!(count == 0 || schedule.due_ns(connection, count - 1) < time_ns, "{time_ns} {connection}");
            }
        }
    }

    #[test]
    fn no_number_is_too_great() {
        let schedule = Schedule { start_ns: u64::MAX - 10, rate: 1, connections: 1, train: 64 };
        assert_eq!(schedule.due_ns(0, u64::MAX), u64::MAX);
        assert_eq!(schedule.due_before(0, u64::MAX), 64);
    }
}
