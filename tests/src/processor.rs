//! What a thread took of its processor: a bound on it holds however busy the machine is.

use rustix::time::{ClockId, clock_gettime};

/// Microseconds that the calling thread worked so far.
pub fn cpu_us() -> u64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    u64::try_from(now.tv_sec * 1_000_000 + now.tv_nsec / 1000).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_sees_work() {
        let began = cpu_us();
        let sum = std::hint::black_box((0..3_000_000_u64).fold(7, |sum, i| sum ^ i.rotate_left(9)));
        assert!(cpu_us() > began && sum > 0);
    }
}
