//! Deadline classes: deadlines that end near each other, so that expiry is accounted in groups.
//! Knows numbers; knows nothing of clocks or files. format-spec.md 8, "Deadline classes".

/// The narrowest class is 2^10 ms wide.
const CLASS_WIDTH_LOG2_MIN: u32 = 10;

/// The end of the class that `deadline_ms` falls in, as seen from `created_ms`; 0 for no deadline.
///
/// The width is the largest power of two that is at most an eighth of the time left, and at least
/// 1024 ms; the end is the next multiple of the width at or above the deadline. A deadline that has
/// passed at `created_ms` counts as one at that moment. Everything in a class has expired when its
/// end has passed; an end that does not fit 64 bits is `u64::MAX`.
pub(crate) fn deadline_class_end(created_ms: u64, deadline_ms: u64) -> u64 {
    if deadline_ms == 0 {
        return 0;
    }
    let deadline_ms = deadline_ms.max(created_ms);
    let left_ms = (deadline_ms - created_ms).max(1);
    let width_log2 = left_ms.ilog2().saturating_sub(3).max(CLASS_WIDTH_LOG2_MIN);
    deadline_ms.checked_next_multiple_of(1 << width_log2).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn no_deadline_has_no_class_and_the_last_deadline_does_not_overflow() {
        assert_eq!(deadline_class_end(5_000_000, 0), 0);
        assert_eq!(deadline_class_end(0, u64::MAX), u64::MAX);
        assert_eq!(deadline_class_end(0, 1), 1024);
        assert_eq!(deadline_class_end(4096, 4096), 4096);
        assert_eq!(deadline_class_end(4096, 7), 4096);
        assert_eq!(deadline_class_end(0, 100_000), 106_496);
    }

    proptest! {
        #[test]
        fn a_class_ends_after_its_deadline_by_less_than_an_eighth_of_the_time_left(
            created_ms in 0_u64..1 << 50, left_ms in 1_u64..1 << 50,
        ) {
            let deadline_ms = created_ms + left_ms;
            let end = deadline_class_end(created_ms, deadline_ms);
            prop_assert!(end >= deadline_ms);
            prop_assert!(end - deadline_ms < (left_ms / 8).max(1024));
        }
    }
}
