//! Dividing one bound among several who enforce it each by itself: nodes of a cluster, shards of a node.

/// What part of an equal share each keeps whatever the others use: a quarter. So much a burst finds before the next
/// division, even where all the rest is in use elsewhere.
const KEPT_PART: u32 = 4;

/// The part of `total` that each of those has who have so many active connections now.
///
/// Everyone keeps what it uses, and a [`KEPT_PART`]th of an equal share at least; what is free is divided equally, since
/// nobody knows where the next connections will come. Where more is in use than there is, what is above the kept parts
/// shrinks in proportion. The sum is `total` at most, but for this: no part is less than 1.
pub fn divide(total: u32, active: &[u32]) -> Vec<u32> {
    let count = active.len().max(1) as u64;
    let total = u64::from(total);
    let kept = total / count / u64::from(KEPT_PART);
    let above = |active: &u32| u64::from(*active).saturating_sub(kept);
    let sum_above: u64 = active.iter().map(above).sum();
    let room = total - kept * count;
    let part = |active: &u32| match room.checked_sub(sum_above) {
        Some(free) => kept + above(active) + free / count,
        None => kept + room * above(active) / sum_above,
    };
    active.iter().map(|active| u32::try_from(part(active)).unwrap_or(u32::MAX).max(1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(total: u32, active: &[u32], expected: &[u32]) {
        assert_eq!(divide(total, active), expected, "{total} among {active:?}");
    }

    #[test]
    fn everyone_keeps_what_it_uses_and_the_rest_is_divided_equally() {
        check(6_000, &[], &[]);
        check(6_000, &[17], &[6_000]);
        check(6_000, &[0, 0, 0], &[2_000, 2_000, 2_000]);
        check(6_000, &[3_000, 0, 0], &[3_666, 1_166, 1_166]);
        check(6_000, &[6_000, 0, 0], &[5_000, 500, 500]);
        check(6_000, &[4_000, 2_000, 0], &[3_650, 1_850, 500]);
        check(6_000, &[9_000, 9_000, 9_000], &[2_000, 2_000, 2_000]);
        check(100, &[100_000_000, 1], &[88, 12]);
    }

    #[test]
    fn a_small_bound_shuts_nobody_out_and_a_large_one_does_not_overflow() {
        check(1, &[0, 0, 0], &[1, 1, 1]);
        check(2, &[9, 0, 0], &[2, 1, 1]);
        check(u32::MAX, &[u32::MAX, u32::MAX], &[u32::MAX / 2, u32::MAX / 2]);
        check(u32::MAX, &[0], &[u32::MAX]);
    }

    #[test]
    fn the_sum_is_the_bound_at_most_and_little_is_left_over() {
        let mut state = 1_u64;
        for _ in 0..10_000 {
            let mut random = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) as u32
            };
            let total = 64 + random() % 100_000;
            let active: Vec<u32> = (0..1 + random() % 16).map(|_| random() % 20_000).collect();
            let sum: u64 = divide(total, &active).into_iter().map(u64::from).sum();
            let lost = active.len() as u64;
            assert!((u64::from(total) - lost..=u64::from(total)).contains(&sum), "{total} among {active:?}: {sum}");
        }
    }
}
