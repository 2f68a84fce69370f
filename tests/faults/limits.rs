//! What judging one damaged store may take: a hang is work without end on its thread, and memory is
//! that of the whole process.

/// What opening, reading, walking, verifying and saving one damaged store may take.
const CPU_US_MAX: u64 = 2_000_000;
/// What the process may take in all, the sweep itself included.
const MEMORY_KIB_MAX: u64 = 512 << 10;

/// The most memory that the process ever had.
pub(crate) fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// What is wrong with what one damaged store took.
pub(crate) fn beyond(cpu_us: u64, memory_kib: u64) -> Option<String> {
    let is_beyond = cpu_us > CPU_US_MAX || memory_kib > MEMORY_KIB_MAX;
    is_beyond.then(|| format!("{} ms of a processor, {memory_kib} KiB", cpu_us / 1000))
}

#[test]
fn what_takes_too_long_or_too_much_is_seen() {
    assert_eq!(beyond(CPU_US_MAX, MEMORY_KIB_MAX), None);
    assert!(beyond(CPU_US_MAX + 1, 0).is_some() && beyond(0, MEMORY_KIB_MAX + 1).is_some());
    let before = peak_kib();
    let taken = std::hint::black_box(vec![1_u8; 64 << 20]);
    assert!(peak_kib() > before || peak_kib() > 64 << 10, "{} bytes unseen", taken.len());
}
