//! The store over a Redis server that the test starts; left out where there is none.
#![expect(clippy::disallowed_methods, reason = "starts a server in a folder of its own")]

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use super::*;
use crate::store::StoreExt;
use crate::store::conformance::{self, Subject};

/// A server of this test alone; ended when dropped.
struct Server {
    child: Child,
    url: String,
    _directory: tempfile::TempDir,
}

impl Server {
    fn start() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .arg("--dir")
            .arg(directory.path())
            .stdout(Stdio::null())
            .spawn();
        let Ok(child) = child else {
            println!("left out: there is no redis-server here");
            return None;
        };
        let url = format!("redis://127.0.0.1:{port}/");
        let this = Self { child, url, _directory: directory };
        for _ in 0..200 {
            if RedisStore::connect(&this.url, "probe").is_ok() {
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

struct Remote(String);

impl Subject for Remote {
    fn store(&self) -> Arc<dyn Store> {
        Arc::new(RedisStore::connect(&self.0, "test").unwrap())
    }

    /// Another connection, another process: what is stored is at the server.
    fn reopen(&self) -> bool {
        true
    }
}

#[test]
fn the_store_over_redis_conforms() {
    let Some(server) = Server::start() else { return };
    let held = conformance::run(&Remote(server.url.clone())).unwrap();
    assert!(held.len() >= 12, "{held:?}");
}

#[test]
fn a_server_that_is_gone_is_an_error_and_names_stay_apart() {
    let Some(server) = Server::start() else { return };
    let store = RedisStore::connect(&server.url, "a").unwrap();
    let other = RedisStore::connect(&server.url, "a:{b}").unwrap();
    let (one, two) = (Ns::new("x}:k").unwrap(), Ns::new("x").unwrap());
    store.put(&one, "k", "1", Ttl::Never).unwrap();
    assert_eq!(store.get(&two, b"k").unwrap(), None);
    assert_eq!(other.get(&one, b"k").unwrap(), None);
    store.put(&one, "gone", "1", Ttl::For(Duration::from_millis(20))).unwrap();
    drop(server);
    assert!(matches!(store.get(&one, b"k"), Err(Error::Backend(_))));
    assert!(store.now() > Millis(1_700_000_000_000));
    assert!(matches!(RedisStore::connect("nonsense", "a"), Err(Error::Backend(_))));
}
