//! One crash image: opened, compared with every state it may show, audited; and its recovery cut
//! again, three deep. Knows images and states; knows nothing of how they came to be.

use std::cell::Cell;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use terrace::testing::{ManualTime, SimVfs, Survivors, TimeSource};
use terrace::{Db, Error, Options};
use terrace_tests::processor::cpu_us;
use terrace_tests::random::Random;

use crate::history::{History, content};

/// Where the store lies on its disk.
pub(crate) const HOME: &str = "/store";
/// Recoveries inside of recoveries.
const DEPTH_MAX: u32 = 3;
/// C7: what the opening of such a small store may take of a processor, without a tail or segments
/// to speak of. Builds that check themselves take more.
const OPEN_CPU_US_MAX: u64 = if cfg!(debug_assertions) { 400_000 } else { 100_000 };
/// Pending effects up to which every subset is tried.
const EXHAUSTIVE_MAX: usize = 12;

thread_local! {
    /// Whether the stores of this thread map files.
    static MAPPED: Cell<bool> = const { Cell::new(true) };
}

/// From now on the stores of this thread map files, or do not.
pub(crate) fn map_files(mapped: bool) {
    MAPPED.set(mapped);
}

/// Options so small that a few dozen records go through every tier.
pub(crate) fn options(disk: &SimVfs, time: &Arc<ManualTime>) -> Options {
    let options = Options::new().memory_budget(4 << 20).warm_budget(4 << 20);
    let options = options.segment_size(1 << 20).without_workers().file_maps(MAPPED.get());
    options.file_system(Arc::new(disk.clone())).time(Arc::clone(time) as Arc<dyn TimeSource>)
}

/// What was judged so far.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Images that were opened and compared.
    pub images: u64,
    /// Images with the bytes of an earlier one, whose verdict held.
    pub repeated: u64,
    /// Places in time at which the disk was cut.
    pub cuts: u64,
    /// Of those, how many had every subset of their effects tried.
    pub exhaustive: u64,
    /// Images of a recovery that was cut, by depth.
    pub nested: [u64; DEPTH_MAX as usize],
    /// Openings with a fault in their middle.
    pub faults: u64,
    /// What the dearest opening took of a processor: the one figure that another run has otherwise.
    pub open_cpu_us: u64,
    /// A digest of every disk and verdict, in order.
    pub trace: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        self.images += other.images;
        self.repeated += other.repeated;
        self.cuts += other.cuts;
        self.exhaustive += other.exhaustive;
        self.faults += other.faults;
        self.open_cpu_us = self.open_cpu_us.max(other.open_cpu_us);
        for (mine, others) in self.nested.iter_mut().zip(other.nested) {
            *mine += others;
        }
        self.trace = self.trace.rotate_left(9) ^ other.trace;
    }
}

/// A run's judge.
pub(crate) struct Judge {
    pub random: Random,
    pub time: Arc<ManualTime>,
    pub tally: Tally,
    /// Judges no more images than this.
    pub images_max: u64,
    /// Images that were judged since the last opening, and the state that each showed.
    seen: HashMap<u64, usize>,
}

impl Judge {
    pub(crate) fn new(random: Random, time: Arc<ManualTime>, images_max: u64) -> Self {
        Self { random, time, tally: Tally::default(), images_max, seen: HashMap::new() }
    }

    /// A new history begins: earlier verdicts are about another one.
    pub(crate) fn forget(&mut self) {
        self.seen.clear();
    }

    pub(crate) fn is_done(&self) -> bool {
        self.tally.images >= self.images_max
    }

    /// Every image that a cut at this moment may leave, or a sample of them.
    pub(crate) fn cut(&mut self, photo: &SimVfs, history: &History) -> Result<(), String> {
        self.tally.cuts += 1;
        // Whoever opens it has room again.
        photo.heal();
        let (pending, outcomes) = (photo.pending(), photo.outcomes());
        if pending <= EXHAUSTIVE_MAX {
            self.tally.exhaustive += 1;
            for outcome in 0..outcomes {
                self.image(&photo.crash(Survivors::Outcome(outcome)), history, 0)?;
            }
            // A file that grew without its data, noise in it.
            let noise = Survivors::Random(self.random.bits());
            self.image(&photo.crash(noise), history, 0)?;
        } else {
            let mut one = || self.random.within(0..pending);
            let (ends, ones) = ([one(), one(), one(), one()], [one(), one(), one()]);
            let mut family = vec![Survivors::None, Survivors::All];
            family.extend(ends.map(Survivors::Prefix));
            family.extend(ends.map(Survivors::Suffix));
            family.extend(ones.map(Survivors::AllBut));
            family.extend(ones.map(Survivors::Only));
            family.extend((0..8).map(|_| Survivors::Random(self.random.bits())));
            for survivors in family {
                self.image(&photo.crash(survivors), history, 0)?;
            }
        }
        self.killed(&photo.kill(), history).map(drop)
    }

    /// Judges what the next process finds after this one was killed.
    pub(crate) fn killed(&mut self, image: &SimVfs, history: &History) -> Result<usize, String> {
        let found = self.open(image, history, &history.after_kill());
        found.map_err(|text| format!("killed: {text}"))
    }

    /// Judges one image of a power cut.
    pub(crate) fn image(
        &mut self,
        image: &SimVfs,
        history: &History,
        depth: u32,
    ) -> Result<usize, String> {
        let range = history.after_power_cut();
        let digest = image.digest();
        if let Some(&found) = self.seen.get(&digest).filter(|found| range.contains(found)) {
            self.tally.repeated += 1;
            return Ok(found);
        }
        if depth < DEPTH_MAX && self.random.below(12) == 0 {
            self.cut_recovery(image, history, depth)?;
        }
        if self.random.below(16) == 0 {
            self.open_with_fault(image);
        }
        let found = self.open(image, history, &range)?;
        self.seen.insert(digest, found);
        Ok(found)
    }

    /// Opens a copy, and judges what a cut in the middle of that would leave.
    fn cut_recovery(
        &mut self,
        image: &SimVfs,
        history: &History,
        depth: u32,
    ) -> Result<(), String> {
        let twin = image.clone_image();
        twin.photograph(1 + self.random.below(4));
        drop(options(&twin, &self.time).open(HOME));
        let photos = twin.photographs();
        for _ in 0..2 {
            let Some(photo) = self.random.pick(&photos) else { return Ok(()) };
            let cut = photo.crash(self.survivors());
            if let Some(count) = self.tally.nested.get_mut(depth as usize) {
                *count += 1;
            }
            self.image(&cut, history, depth + 1)
                .map_err(|text| format!("in a recovery {} deep: {text}", depth + 1))?;
        }
        Ok(())
    }

    pub(crate) fn survivors(&mut self) -> Survivors {
        match self.random.below(8) {
            0 => Survivors::None,
            1 => Survivors::All,
            2 => Survivors::Prefix(self.random.within(0..40)),
            _ => Survivors::Random(self.random.bits()),
        }
    }

    /// An opening that meets a read error may fail. It may not lose anything: the image is opened
    /// again behind it.
    fn open_with_fault(&mut self, image: &SimVfs) {
        self.tally.faults += 1;
        let k = 1 + self.random.below(12);
        match self.random.below(4) {
            0 => image.shorten_read_at(k),
            1 => image.fail_sync_at(k),
            2 => image.fail_write_at(k),
            _ => image.fail_read_at(k),
        }
        drop(options(image, &self.time).open(HOME));
        image.heal();
    }

    /// Opens an image and says which state it shows.
    fn open(
        &mut self,
        image: &SimVfs,
        history: &History,
        range: &Range<usize>,
    ) -> Result<usize, String> {
        self.tally.images += 1;
        let began = cpu_us();
        let db = self.reopen(image)?;
        let taken = cpu_us() - began;
        self.tally.open_cpu_us = self.tally.open_cpu_us.max(taken);
        in_time(taken)?;
        let shown = content(&db).map_err(|error| format!("a walk failed: {error}"))?;
        let now = self.time.wall_ms();
        let Some(found) = history.find(&shown, range.clone(), now) else {
            let text = history.difference(&shown, now);
            return Err(format!("{} keys are no state of {range:?}: {text}", shown.len()));
        };
        self.look_closer(&db, image, history, found)?;
        let mixed = (image.trace() ^ found as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.tally.trace = self.tally.trace.rotate_left(5) ^ mixed;
        Ok(found)
    }

    fn reopen(&self, image: &SimVfs) -> Result<Db, String> {
        options(image, &self.time).open(HOME).map_err(|error| match error {
            Error::Damaged { damage, .. } => format!("open: {damage:?}"),
            other => format!("open: {other}"),
        })
    }

    /// The account is exact, everything verifies, and a second opening shows the same.
    fn look_closer(
        &mut self,
        db: &Db,
        image: &SimVfs,
        history: &History,
        found: usize,
    ) -> Result<(), String> {
        let audit = db.audit().map_err(|error| format!("audit: {error}"))?;
        if !audit.is_exact() {
            return Err(format!("the account is wrong: {audit:?}"));
        }
        if self.random.below(24) > 0 {
            return Ok(());
        }
        let verified = db.verify(|_| ()).map_err(|error| format!("verify: {error}"))?;
        if !verified.is_sound() {
            return Err(format!("verify: {:?}", verified.damage));
        }
        let again = self.reopen(&image.kill())?;
        let shown = content(&again).map_err(|error| format!("a second walk failed: {error}"))?;
        match history.find(&shown, found..found + 1, self.time.wall_ms()) {
            Some(_) => Ok(()),
            None => Err("a second opening shows something else".into()),
        }
    }
}

/// C7: the first opening ends soon.
fn in_time(open_cpu_us: u64) -> Result<(), String> {
    if open_cpu_us <= OPEN_CPU_US_MAX {
        return Ok(());
    }
    Err(format!("opening took {open_cpu_us} us of a processor"))
}

#[test]
fn an_opening_that_takes_too_long_is_seen() {
    assert_eq!(in_time(OPEN_CPU_US_MAX), Ok(()));
    assert!(in_time(OPEN_CPU_US_MAX + 1).is_err());
}
