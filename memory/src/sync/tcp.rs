//! Frames over TCP on this machine: a length and bytes, one connection a direction.
//! Knows sockets; starts no thread. Nobody is asked who they are, so only loopback is accepted.

use std::collections::HashMap;
use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::clock::Stopwatch;
use crate::error::{Error, Result};
use crate::sync::frame::FRAME_LEN_MAX;
use crate::sync::transport::Transport;

/// Connections that are listened to.
const CONNECTIONS_MAX: usize = 64;
/// The longest name of a node.
const NAME_LEN_MAX: u64 = 256;
const CONNECT_WAIT: Duration = Duration::from_millis(500);
const WRITE_WAIT: Duration = Duration::from_secs(1);
const READ_PIECE: usize = 64 << 10;

/// A node's end of a network of processes on one machine.
pub struct TcpTransport {
    node: String,
    address: SocketAddr,
    listener: TcpListener,
    peers: Mutex<HashMap<String, SocketAddr>>,
    /// Protects: connections that this node opened. One writer at a time.
    outgoing: Mutex<HashMap<String, TcpStream>>,
    /// Protects: connections that others opened, and what came of a frame so far.
    incoming: Mutex<Vec<Incoming>>,
}

struct Incoming {
    stream: TcpStream,
    /// Who it is: the first frame says so.
    name: Option<String>,
    bytes: Vec<u8>,
    ended: bool,
}

impl fmt::Debug for TcpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TcpTransport({:?} at {})", self.node, self.address)
    }
}

impl TcpTransport {
    /// Listens as `node`. Port 0 takes a free one; [`TcpTransport::address`] says which.
    ///
    /// Errors: [`Error::Invalid`] for an address that is not of this machine.
    pub fn bind(node: &str, address: SocketAddr) -> Result<Self> {
        check_loopback(address)?;
        Error::check_limit("name of a node", node.len(), NAME_LEN_MAX)?;
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let node = node.to_owned();
        let (peers, outgoing, incoming) = (Mutex::default(), Mutex::default(), Mutex::default());
        Ok(Self { node, address, listener, peers, outgoing, incoming })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where a peer listens; a new address takes the place of the old one.
    pub fn add_peer(&self, peer: &str, address: SocketAddr) -> Result<()> {
        check_loopback(address)?;
        self.peers.lock().insert(peer.to_owned(), address);
        self.outgoing.lock().remove(peer);
        Ok(())
    }

    fn connect(&self, peer: &str) -> Result<TcpStream> {
        let address = self.peers.lock().get(peer).copied();
        let address = address.ok_or(Error::Invalid("a peer without an address"))?;
        let mut stream = TcpStream::connect_timeout(&address, CONNECT_WAIT)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(WRITE_WAIT))?;
        write_frame(&mut stream, self.node.as_bytes())?;
        Ok(stream)
    }

    /// Waits until something can be read; `false` when nothing could for so long.
    fn wait(&self, incoming: &[Incoming], wait: Duration) -> Result<bool> {
        let mut all = vec![PollFd::new(&self.listener, PollFlags::IN)];
        all.extend(incoming.iter().map(|one| PollFd::new(&one.stream, PollFlags::IN)));
        let wait = Timespec::try_from(wait).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        match poll(&mut all, Some(&wait)) {
            Ok(ready) => Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(error) => Err(Error::Io(error.into())),
        }
    }

    fn accept(&self, incoming: &mut Vec<Incoming>) -> Result<()> {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) if incoming.len() < CONNECTIONS_MAX => {
                    stream.set_nonblocking(true)?;
                    incoming.push(Incoming { stream, name: None, bytes: Vec::new(), ended: false });
                }
                // Too many: this one is closed again.
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Transport for TcpTransport {
    fn send(&self, peer: &str, frame: &[u8]) -> Result<()> {
        let mut outgoing = self.outgoing.lock();
        if let Some(stream) = outgoing.get_mut(peer) {
            if write_frame(stream, frame).is_ok() {
                return Ok(());
            }
            // The peer may have been started anew.
            outgoing.remove(peer);
        }
        let mut stream = self.connect(peer)?;
        write_frame(&mut stream, frame)?;
        outgoing.insert(peer.to_owned(), stream);
        Ok(())
    }

    fn recv(&self, wait: Duration) -> Result<Option<(String, Vec<u8>)>> {
        let watch = Stopwatch::start(wait);
        let mut incoming = self.incoming.lock();
        loop {
            for one in incoming.iter_mut() {
                if let Some(frame) = one.frame() {
                    return Ok(Some(frame));
                }
            }
            self.accept(&mut incoming)?;
            let mut came = false;
            for one in incoming.iter_mut() {
                came |= one.read();
            }
            if came {
                continue;
            }
            incoming.retain(|one| !one.ended);
            let left = watch.left();
            if !self.wait(&incoming, left.unwrap_or_default())? && left.is_none() {
                return Ok(None);
            }
        }
    }
}

impl Incoming {
    /// Reads what is there, up to one frame ahead; answers whether something came.
    fn read(&mut self) -> bool {
        if self.ended || self.bytes.len() as u64 > FRAME_LEN_MAX + 4 {
            return false;
        }
        let mut piece = vec![0; READ_PIECE];
        match self.stream.read(&mut piece) {
            Ok(0) => self.ended = true,
            Ok(len) => {
                self.bytes.extend_from_slice(piece.get(..len).unwrap_or(&[]));
                return true;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => return true,
            Err(_) => self.ended = true,
        }
        false
    }

    /// The next whole frame; the first says who it is. A crooked length ends the connection.
    fn frame(&mut self) -> Option<(String, Vec<u8>)> {
        loop {
            let len = u32::from_be_bytes(*self.bytes.first_chunk::<4>()?);
            let max = if self.name.is_some() { FRAME_LEN_MAX } else { NAME_LEN_MAX };
            if u64::from(len) > max {
                self.ended = true;
                self.bytes.clear();
                return None;
            }
            let end = 4 + usize::try_from(len).ok()?;
            let frame = self.bytes.get(4..end)?.to_vec();
            self.bytes.drain(..end);
            match &self.name {
                Some(name) => return Some((name.clone(), frame)),
                None => self.name = Some(String::from_utf8_lossy(&frame).into_owned()),
            }
        }
    }
}

fn check_loopback(address: SocketAddr) -> Result<()> {
    if address.ip().is_loopback() {
        Ok(())
    } else {
        Err(Error::Invalid("peers are not asked who they are: loopback addresses alone"))
    }
}

fn write_frame(stream: &mut TcpStream, frame: &[u8]) -> Result<()> {
    Error::check_limit("bytes of a frame", frame.len(), FRAME_LEN_MAX)?;
    let len = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    let mut whole = Vec::with_capacity(4 + frame.len());
    whole.extend_from_slice(&len.to_be_bytes());
    whole.extend_from_slice(frame);
    Ok(stream.write_all(&whole)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(node: &str) -> TcpTransport {
        TcpTransport::bind(node, SocketAddr::from(([127, 0, 0, 1], 0))).unwrap()
    }

    #[test]
    fn frames_arrive_also_at_a_node_that_was_started_anew() {
        let (a, b) = (bind("a"), bind("b"));
        a.add_peer("b", b.address()).unwrap();
        let large = vec![7; 3 << 20];
        let got = std::thread::scope(|scope| {
            scope.spawn(|| a.send("b", &large).and_then(|()| a.send("b", b"small")));
            let one = b.recv(Duration::from_secs(20)).unwrap().unwrap();
            (one, b.recv(Duration::from_secs(20)).unwrap().unwrap())
        });
        assert_eq!((got.0.0.as_str(), got.0.1.len()), ("a", large.len()));
        assert_eq!(got.1, ("a".to_owned(), b"small".to_vec()));
        drop(b);
        let b = bind("b");
        a.add_peer("b", b.address()).unwrap();
        a.send("b", b"again").unwrap();
        assert_eq!(b.recv(Duration::from_secs(20)).unwrap().unwrap().1, b"again");
        assert_eq!(b.recv(Duration::from_millis(10)).unwrap(), None);
    }

    #[test]
    fn a_crooked_length_ends_its_connection_and_no_other() {
        let (a, b) = (bind("a"), bind("b"));
        a.add_peer("b", b.address()).unwrap();
        let mut stranger = TcpStream::connect(b.address()).unwrap();
        stranger.write_all(&[0xFF; 64]).unwrap();
        assert_eq!(b.recv(Duration::from_millis(50)).unwrap(), None);
        a.send("b", b"x").unwrap();
        assert_eq!(b.recv(Duration::from_secs(20)).unwrap().unwrap().0, "a");
        let far = TcpTransport::bind("c", SocketAddr::from(([192, 0, 2, 1], 0)));
        assert!(matches!(far, Err(Error::Invalid(_))));
        assert!(matches!(a.send("nobody", b"x"), Err(Error::Invalid(_))));
    }
}
