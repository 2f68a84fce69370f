//! After `kill -9` at any moment every acknowledged write is there, with its TTL.
//!
//! The test runs itself as a child that writes and acknowledges each record on its standard output;
//! the parent kills it at a random moment, opens the store, and looks for everything acknowledged.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use terrace::{Options, PutOptions};
use terrace_tests::random::Random;
use terrace_tests::scratch::Scratch;

use crate::tiny;

const DIR: &str = "TERRACE_KILL_DIR";
const FROM: &str = "TERRACE_KILL_FROM";

fn value(i: u64) -> Vec<u8> {
    let len = usize::try_from(i * 7919 % 3000).unwrap();
    vec![i.to_le_bytes()[0]; len]
}

#[test]
#[ignore = "the child of the next test; it writes until it is killed"]
fn child_that_writes_until_it_is_killed() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let from: u64 = std::env::var(FROM).unwrap().parse().unwrap();
    let db = tiny().open(dir).unwrap();
    let ks = db.keyspace("default").unwrap();
    let mut out = std::io::stdout().lock();
    for i in from.. {
        let options = PutOptions::new().ttl(Duration::from_secs(100_000));
        ks.put_with(i.to_be_bytes(), value(i), options).unwrap();
        writeln!(out, "ack {i}").unwrap();
        assert!(i < from + 10_000_000, "nobody killed it");
    }
}

#[test]
fn every_acknowledged_write_survives_twelve_kills_with_its_ttl() {
    let scratch = Scratch::new().unwrap();
    let dir = scratch.join("db");
    let mut random = Random::from_environment(11);
    let mut next = 0;
    for round in 0..12 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "kill::child_that_writes_until_it_is_killed"])
            .args(["--nocapture"])
            .env(DIR, &dir)
            .env(FROM, next.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stop = next + 1 + random.below(3000);
        let mut acked = None;
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for line in lines {
            let line = line.unwrap();
            if let Some(number) = line.rsplit_once("ack ").and_then(|(_, n)| n.parse::<u64>().ok())
            {
                acked = Some(number);
                if number == stop {
                    child.kill().unwrap();
                }
            }
        }
        child.wait().unwrap();
        let acked = acked.expect("the child wrote something");
        let db = Options::new().open(&dir).unwrap();
        let ks = db.keyspace("default").unwrap();
        for i in 0..=acked {
            let info = ks.info(i.to_be_bytes()).unwrap();
            assert!(info.is_some_and(|info| info.expires_at.is_some()), "round {round}: {i}");
            assert_eq!(ks.get(i.to_be_bytes()).unwrap().as_deref(), Some(&value(i)[..]));
        }
        let audit = db.audit().unwrap();
        assert!(audit.is_exact(), "{audit:#?}");
        next = acked + 1;
    }
}
