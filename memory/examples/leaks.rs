//! A list that only grows is found by its name and its slope; one that comes and goes is not.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use terrace_memory::leak::{LeakPolicy, MemoryLeakDetector};
use terrace_memory::store::{Clock, Millis};

fn main() {
    // A clock that this example moves; without one the detector takes the system's.
    let clock = Clock::manual(Millis(1_800_000_000_000));
    let detector = MemoryLeakDetector::new().clock(clock.clone());
    let growing = Arc::new(Mutex::new(Vec::<String>::new()));
    let steady = Arc::new(Mutex::new(Vec::<String>::new()));
    detector.track("growing", &growing);
    detector.track("steady", &steady);
    detector.baseline();
    for round in 0..20 {
        growing.lock().extend((0..1000).map(|i| format!("round {round}, line {i}, never read")));
        *steady.lock() = (0..1000).map(|i| format!("line {i}")).collect();
        clock.advance(Duration::from_mins(1));
        detector.sample();
    }
    let leaks = detector.detect(LeakPolicy { growth_bytes_min: 100_000, ..LeakPolicy::default() });
    for leak in &leaks {
        println!("{leak:?}");
    }
    let names: Vec<&str> = leaks.iter().map(|leak| leak.name.as_str()).collect();
    assert_eq!(names, ["growing"]);
    assert_eq!(detector.breakdown().get("steady").map(|usage| usage.objects), Some(1));
}
