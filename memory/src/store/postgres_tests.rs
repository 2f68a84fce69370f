//! The store over a `PostgreSQL` server that the test starts; left out where there is none.
#![expect(clippy::disallowed_methods, reason = "starts a server in a folder of its own")]

use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::*;
use crate::store::conformance::{self, Subject};
use crate::store::{StoreExt, Ttl};

/// A server of this test alone; ended when dropped.
struct Server {
    child: Child,
    address: String,
    _directory: tempfile::TempDir,
}

/// The folder of the server's programs.
fn programs() -> Option<PathBuf> {
    let asked = Command::new("pg_config").arg("--bindir").output().ok();
    let asked = asked.map(|out| PathBuf::from(String::from_utf8_lossy(&out.stdout).trim()));
    let versions = Path::new("/usr/lib/postgresql").read_dir().ok();
    let versions = versions.into_iter().flatten().flatten().map(|one| one.path().join("bin"));
    asked.into_iter().chain(versions).find(|folder| folder.join("initdb").is_file())
}

fn id(flag: &str) -> Option<u32> {
    let out = Command::new("id").args([flag, "postgres"]).output().ok()?;
    String::from_utf8_lossy(&out.stdout).trim().parse().ok()
}

/// The server refuses to run as the superuser: then as `postgres`.
fn other_user() -> Option<(u32, u32)> {
    let is_superuser = rustix::process::geteuid().is_root();
    if is_superuser { Some((id("-u")?, id("-g")?)) } else { None }
}

impl Server {
    fn start() -> Option<Self> {
        let Some(programs) = programs() else {
            println!("left out: there is no PostgreSQL here");
            return None;
        };
        let directory = tempfile::tempdir().unwrap();
        let user = other_user();
        if let Some((uid, gid)) = user {
            chown(directory.path(), Some(uid), Some(gid)).unwrap();
        }
        let command = |name: &str| {
            let mut command = Command::new(programs.join(name));
            if let Some((uid, gid)) = user {
                command.uid(uid).gid(gid);
            }
            command.current_dir(directory.path()).stdout(Stdio::null()).stderr(Stdio::null());
            command
        };
        let data = directory.path().join("data");
        let made = command("initdb")
            .args(["-A", "trust", "-U", "test", "-E", "UTF8", "--no-sync", "-D"])
            .arg(&data)
            .status();
        if !made.is_ok_and(|made| made.success()) {
            println!("left out: initdb does not work here");
            return None;
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = command("postgres")
            .args(["-p", &port.to_string(), "-h", "127.0.0.1", "-F", "-k", "", "-D"])
            .arg(&data)
            .spawn()
            .unwrap();
        let address = format!("host=127.0.0.1 port={port} user=test dbname=postgres");
        let this = Self { child, address, _directory: directory };
        for _ in 0..400 {
            if PgStore::connect(&this.address).is_ok() {
                return Some(this);
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        panic!("the server does not answer");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

struct Remote {
    server: Server,
    store: Mutex<PgStore>,
}

impl Subject for Remote {
    fn store(&self) -> Arc<dyn Store> {
        Arc::new(self.store.lock().clone())
    }

    fn reopen(&self) -> bool {
        *self.store.lock() = PgStore::connect(&self.server.address).unwrap();
        true
    }
}

#[test]
fn the_store_over_postgresql_conforms() {
    let Some(server) = Server::start() else { return };
    let store = Mutex::new(PgStore::connect(&server.address).unwrap());
    let held = conformance::run(&Remote { server, store }).unwrap();
    assert!(held.len() >= 12, "{held:?}");
}

#[test]
fn a_server_that_is_gone_is_an_error() {
    let Some(server) = Server::start() else { return };
    let store = PgStore::connect(&server.address).unwrap();
    let ns = Ns::new("a").unwrap();
    store.put(&ns, "k", "1", Ttl::Never).unwrap();
    assert_eq!(store.get(&ns, b"k").unwrap().unwrap().value, "1");
    drop(server);
    assert!(matches!(store.get(&ns, b"k"), Err(Error::Backend(_))));
    assert!(store.now() > Millis(1_700_000_000_000));
    assert!(matches!(PgStore::connect("port=no"), Err(Error::Backend(_))));
}
