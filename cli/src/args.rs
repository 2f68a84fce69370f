//! What can be said on the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

/// Embedded, tiered key-value storage.
#[derive(Debug, Parser)]
#[command(name = "terrace", version, arg_required_else_help = true)]
pub(crate) struct Args {
    /// The store's directory; created when absent
    #[arg(long, global = true, env = "TERRACE_DB", value_name = "DIR")]
    pub db: Option<PathBuf>,
    /// Answer in JSON
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

/// Where a record is looked for.
#[derive(Debug, clap::Args)]
pub(crate) struct Place {
    /// The key
    pub key: String,
    /// The keyspace
    #[arg(long, default_value = "default", value_name = "NAME")]
    pub keyspace: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write a record; the value `-` is read from standard input
    Put {
        /// The key
        key: String,
        /// The value, or `-`
        value: String,
        /// The record expires after this time: 1500ms, 90s, 5m, 2h, 1d
        #[arg(long, value_parser = parse_duration)]
        ttl: Option<Duration>,
        /// The keyspace
        #[arg(long, default_value = "default", value_name = "NAME")]
        keyspace: String,
        /// Return when the record is on stable storage
        #[arg(long)]
        sync: bool,
    },
    /// Write a record's value to standard output
    Get(Place),
    /// Delete a record
    Delete(Place),
    /// List records in order of their keys
    Scan(ScanArgs),
    /// Read records from JSON Lines files, from `-`, or from a directory of files
    Import {
        /// JSON Lines files, or `-` for standard input
        #[arg(required_unless_present = "dir")]
        files: Vec<PathBuf>,
        /// Take every file below this directory; its relative path is the key
        #[arg(long, value_name = "PATH", conflicts_with = "files")]
        dir: Option<PathBuf>,
        /// The keyspace of records that name none
        #[arg(long, default_value = "default", value_name = "NAME")]
        keyspace: String,
    },
    /// Write all records as JSON Lines
    Export {
        /// To this file instead of standard output
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Only this keyspace
        #[arg(long, value_name = "NAME")]
        keyspace: Option<String>,
    },
    /// Figures of the store
    Stats,
    /// Where every byte is
    Ledger,
    /// Read and check everything
    Verify {
        /// At most so many MiB a second
        #[arg(long, value_name = "N")]
        mib_per_s: Option<u64>,
    },
    /// Save what is sound of a damaged store to a new one; the damaged one stays as it is
    Salvage {
        /// The damaged store; nobody may be writing to it
        from: PathBuf,
        /// A directory that is new or empty
        into: PathBuf,
    },
    /// Copy this moment of the store to a new directory; it opens by itself
    Checkpoint {
        /// A directory that is new or empty
        into: PathBuf,
    },
    /// Clean the whole log now (never needed)
    Compact,
    /// Watch a running store at work; its process was told `Options::statistics_every`
    Top(TopArgs),
    /// Load and read a temporary store, and print what it takes
    Bench(BenchArgs),
    /// See the three tiers at work on real text, in about a minute
    Demo(DemoArgs),
    /// The child that the demo kills
    #[command(hide = true)]
    DemoWriter(WriterArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct ScanArgs {
    /// Only keys that begin with this
    #[arg(long, conflicts_with_all = ["from", "to"])]
    pub prefix: Option<String>,
    /// From this key on
    #[arg(long)]
    pub from: Option<String>,
    /// Up to this key, without it
    #[arg(long)]
    pub to: Option<String>,
    /// At most so many
    #[arg(long)]
    pub limit: Option<usize>,
    /// No values
    #[arg(long)]
    pub keys_only: bool,
    /// The keyspace
    #[arg(long, default_value = "default", value_name = "NAME")]
    pub keyspace: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct TopArgs {
    /// Show one frame and end; works without a terminal
    #[arg(long)]
    pub once: bool,
    /// Time between two frames
    #[arg(long, value_parser = parse_duration, default_value = "1s")]
    pub every: Duration,
}

#[derive(Debug, clap::Args)]
pub(crate) struct BenchArgs {
    /// Records to load
    #[arg(long, default_value_t = 1_000_000)]
    pub keys: u64,
    /// Bytes of each value
    #[arg(long, default_value_t = 100)]
    pub value_len: usize,
    /// Load the keys in random order
    #[arg(long)]
    pub random: bool,
    /// Keep the keys in no order: less memory, and no scans
    #[arg(long)]
    pub unordered: bool,
    /// MiB of memory that the store may take
    #[arg(long, default_value_t = 256)]
    pub memory_mib: u64,
    /// Show the store at work meanwhile, as `terrace top` does
    #[arg(long)]
    pub top: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// Every file below this path; the sources that Cargo downloaded by default
    pub path: Option<PathBuf>,
    /// At most so many MiB of text
    #[arg(long, default_value_t = 96)]
    pub limit_mib: u64,
}

#[derive(Debug, clap::Args)]
pub(crate) struct WriterArgs {
    /// The store
    pub dir: PathBuf,
}

/// A number with a unit: ms, s, m, h, d.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| format!("{text:?} is no duration like 90s"))?;
    let ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(format!("{text:?}: a duration ends with ms, s, m, h or d")),
    };
    number.checked_mul(ms).map(Duration::from_millis).ok_or_else(|| format!("{text:?} is too long"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units_and_anything_else_is_refused() {
        assert_eq!(parse_duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("1500ms"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("2h"), Ok(Duration::from_hours(2)));
        for bad in ["", "s", "90", "9x", "-1s", "99999999999999999999d", "18446744073709551615d"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
