//! What is counted: one call of each kind, over a store that is filled before.
//! Knows the store; knows nothing of counting.

#![forbid(unsafe_code)]

use std::error::Error;
use std::hint::black_box;
use std::ops::ControlFlow;
use std::time::Duration;

use terrace::{Db, Keyspace, KeyspaceOptions, Options};
use terrace_benches::workload::{Key, Numbers, Texts, VALUE_LEN, fill_value, key};

pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

/// Keys of one `multi_get`.
const KEYS_A_CALL: u64 = 32;
/// Records of one scan.
const ROWS_A_CALL: usize = 50;
/// Keys and values of a store that must hold them, index and copies included.
const MEMORY_A_KEY: u64 = 512;

/// How long a put waits for demotion.
const SETTLE_MAX: Duration = Duration::from_mins(1);

/// One kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kernel {
    GetHot,
    GetHotWith,
    GetWarm,
    GetWarmWith,
    GetAbsent,
    GetCold,
    MultiGet,
    PutNew,
    PutNewUnordered,
    Overwrite,
    Scan,
    ScanChanged,
    Range,
}

impl Kernel {
    pub(crate) const ALL: [Self; 13] = [
        Self::GetHot,
        Self::GetHotWith,
        Self::GetWarm,
        Self::GetWarmWith,
        Self::GetAbsent,
        Self::GetCold,
        Self::MultiGet,
        Self::PutNew,
        Self::PutNewUnordered,
        Self::Overwrite,
        Self::Scan,
        Self::ScanChanged,
        Self::Range,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::GetHot => "get_hot",
            Self::GetHotWith => "get_hot_with",
            Self::GetWarm => "get_warm",
            Self::GetWarmWith => "get_warm_with",
            Self::GetAbsent => "get_absent",
            Self::GetCold => "get_cold",
            Self::MultiGet => "multi_get_32",
            Self::PutNew => "put_new",
            Self::PutNewUnordered => "put_new_unordered",
            Self::Overwrite => "overwrite",
            Self::Scan => "scan_with_50",
            Self::ScanChanged => "scan_with_50_changed",
            Self::Range => "range_50",
        }
    }

    pub(crate) fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kernel| kernel.name() == name)
    }

    /// Calls that are counted: enough that what happens now and then is in it.
    pub(crate) fn calls(self) -> u64 {
        match self {
            Self::MultiGet | Self::Scan | Self::ScanChanged | Self::Range | Self::GetCold => 500,
            _ => 10_000,
        }
    }
}

/// A filled store.
pub(crate) struct Prepared {
    kernel: Kernel,
    keys: u64,
    _db: Db,
    keyspace: Keyspace,
    numbers: Numbers,
    fresh: u64,
}

impl Prepared {
    pub(crate) fn new(kernel: Kernel, keys: u64) -> Outcome<Self> {
        let options = match kernel {
            Kernel::GetHot | Kernel::GetHotWith => KeyspaceOptions::new().volatile(),
            Kernel::PutNewUnordered => KeyspaceOptions::new().unordered(),
            _ => KeyspaceOptions::new(),
        };
        let cold = kernel == Kernel::GetCold;
        let memory = if cold { 4 << 20 } else { keys * MEMORY_A_KEY + (64 << 20) };
        let warm = if cold { 4 << 20 } else { 64 << 30 };
        let db = Options::new().memory_budget(memory).warm_budget(warm).temporary()?;
        let keyspace = db.keyspace_with("kernels", options)?;
        let mut value = [0; VALUE_LEN];
        let texts = Texts::default();
        for id in 0..keys {
            if cold {
                put_cold(&db, &keyspace, &key(id), &texts.text(id))?;
            } else {
                fill_value(id, 0, &mut value);
                keyspace.put(key(id), value)?;
            }
        }
        if cold {
            db.compact()?;
        }
        let this = Self { kernel, keys, _db: db, keyspace, numbers: Numbers::new(1), fresh: keys };
        if matches!(kernel, Kernel::Scan | Kernel::ScanChanged | Kernel::Range) {
            black_box(this.keyspace.first()?);
        }
        if kernel == Kernel::ScanChanged {
            (0..keys).step_by(2).try_for_each(|id| this.keyspace.put(key(id), [9; VALUE_LEN]))?;
        }
        Ok(this)
    }

    /// Keys for one call, and which call that is: of changing scans every twentieth puts.
    fn choose(&mut self, chosen: &mut Vec<Key>) -> Kernel {
        let is_put = self.kernel == Kernel::ScanChanged && self.fresh.is_multiple_of(20);
        let kernel = if is_put { Kernel::PutNew } else { self.kernel };
        let count = if kernel == Kernel::MultiGet { KEYS_A_CALL } else { 1 };
        chosen.clear();
        for _ in 0..count {
            let any = self.numbers.below(self.keys);
            self.fresh += 1;
            chosen.push(key(match kernel {
                Kernel::GetAbsent => self.keys * 8 + any,
                Kernel::PutNew | Kernel::PutNewUnordered => self.fresh,
                _ => any,
            }));
        }
        kernel
    }

    pub(crate) fn run(&mut self, calls: u64) -> Outcome<()> {
        let mut chosen = Vec::new();
        for _ in 0..calls {
            let kernel = self.choose(&mut chosen);
            let len = kernel_call(kernel, &self.keyspace, black_box(&chosen))?;
            if len == 0 {
                return Err(format!("{} found nothing", self.kernel.name()).into());
            }
        }
        Ok(())
    }
}

/// The log is the smallest there is: where demotion is slow, it is waited for.
fn put_cold(db: &Db, keyspace: &Keyspace, key: &Key, text: &[u8]) -> Outcome<()> {
    loop {
        match keyspace.put(key, text) {
            Err(terrace::Error::Full { .. }) => {
                db.settle(SETTLE_MAX)?;
            }
            other => return Ok(other?),
        }
    }
}

fn scan(keyspace: &Keyspace, from: &Key) -> Outcome<usize> {
    let (mut count, mut len) = (0, 0);
    keyspace.scan_with(&from[..].., |key, value| {
        len += key.len() + value.len();
        count += 1;
        if count == ROWS_A_CALL { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok(len)
}

fn range(keyspace: &Keyspace, from: &Key) -> Outcome<usize> {
    let mut len = 0;
    for row in keyspace.range(&from[..]..).take(ROWS_A_CALL) {
        let (key, value) = row?;
        len += key.len() + value.len();
    }
    Ok(len)
}

/// One call; what callgrind counts, so it keeps its name. Answers how much was found.
#[inline(never)]
pub(crate) fn kernel_call(kernel: Kernel, keyspace: &Keyspace, keys: &[Key]) -> Outcome<usize> {
    let key = keys.first().ok_or("no key")?;
    Ok(match kernel {
        Kernel::GetHot | Kernel::GetWarm | Kernel::GetCold => {
            black_box(keyspace.get(key)?).map_or(0, |value| value.len())
        }
        Kernel::GetHotWith | Kernel::GetWarmWith => {
            keyspace.get_with(key, |value| black_box(value).len())?.unwrap_or(0)
        }
        Kernel::GetAbsent => usize::from(keyspace.get(key)?.is_none()),
        Kernel::MultiGet => {
            let values = black_box(keyspace.multi_get(keys)?);
            values.iter().flatten().map(|value| value.len()).sum()
        }
        Kernel::PutNew | Kernel::PutNewUnordered | Kernel::Overwrite => {
            keyspace.put(key, black_box([7; VALUE_LEN]))?;
            1
        }
        Kernel::Scan | Kernel::ScanChanged => scan(keyspace, key)?,
        Kernel::Range => range(keyspace, key)?,
    })
}
