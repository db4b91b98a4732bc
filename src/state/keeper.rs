//! The keeper: a process that holds the descriptors of an instance open between two processes.
//!
//! ```text
//!   natbox ── keep, descriptors ──▶ keeper       packets wait in the TUN's queues
//!     killed                          │
//!   natbox ── give ────────────────▶ keeper
//!          ◀── descriptors ──────────
//! ```
//!
//! An instance that finds no keeper starts one before it drops privileges. The keeper ends on
//! request (`natbox down`). It opens no file and starts no program.
//!
//! A message is one byte: a request, or the answer to one. Each descriptor has a message of its own
//! after the number of descriptors.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// The command of `natbox` that makes a process the keeper.
pub(crate) const KEEPER_COMMAND: &str = "keep-descriptors";

/// The connection to a keeper.
#[derive(Debug)]
pub(crate) struct Keeper {
    connection: UnixStream,
}

impl Keeper {
    /// Connects to the keeper of a directory.
    ///
    /// # Errors
    /// None runs.
    pub(super) fn connect(directory: &Path) -> io::Result<Self> {
        let open = rustix::fs::open(directory, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let connection = UnixStream::connect(socket(open.as_fd()))?;
        connection.set_read_timeout(Some(TIMEOUT))?;
        connection.set_write_timeout(Some(TIMEOUT))?;
        Ok(Self { connection })
    }

    /// Starts a keeper for a directory, and connects to it.
    ///
    /// # Errors
    /// The system's error.
    pub(super) fn start(directory: &Path) -> io::Result<Self> {
        let open = rustix::fs::open(directory, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let path = socket(open.as_fd());
        remove_socket(&path)?;
        let listener = UnixListener::bind(&path)?;
        // The program that runs now, even if its file has been replaced since.
        Command::new("/proc/self/exe")
            .arg0("natbox")
            .arg(KEEPER_COMMAND)
            .current_dir("/")
            .stdin(OwnedFd::from(listener))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        Self::connect(directory)
    }

    /// Hands descriptors to the keeper, which closes those that it has had.
    ///
    /// # Errors
    /// The keeper does not answer.
    pub(super) fn keep(&self, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        send(&self.connection, ProtocolByte::KEEP, None)?;
        send_all(&self.connection, descriptors)?;
        self.expect_done()
    }

    /// Fetches the descriptors. The keeper has them as well.
    ///
    /// # Errors
    /// The keeper does not answer.
    pub(super) fn give(&self) -> io::Result<Vec<OwnedFd>> {
        send(&self.connection, ProtocolByte::GIVE, None)?;
        receive_all(&self.connection)
    }

    /// Ends the keeper.
    ///
    /// # Errors
    /// The keeper does not answer.
    pub(super) fn end(&self) -> io::Result<()> {
        send(&self.connection, ProtocolByte::END, None)?;
        self.expect_done()
    }

    fn expect_done(&self) -> io::Result<()> {
        match receive(&self.connection)? {
            (ProtocolByte::DONE, _) => Ok(()),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// Does the keeper's work on the socket that is its standard input, until a request ends it.
///
/// # Errors
/// The socket fails.
pub(crate) fn keep_descriptors() -> io::Result<()> {
    let listener = UnixListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    // A terminal's signals must not reach the keeper.
    let _ = rustix::process::setsid();
    let mut kept = Vec::new();
    for connection in listener.incoming() {
        // A client that breaks off changes nothing.
        if let Ok(true) = serve(&connection?, &mut kept) {
            break;
        }
    }
    Ok(())
}

/// Serves a connection until it closes. Returns true when the keeper has to end.
fn serve(connection: &UnixStream, kept: &mut Vec<OwnedFd>) -> io::Result<bool> {
    loop {
        match receive(connection)?.0 {
            ProtocolByte::KEEP => {
                *kept = receive_all(connection)?;
                send(connection, ProtocolByte::DONE, None)?;
            }
            ProtocolByte::GIVE => send_all(connection, kept)?,
            ProtocolByte::END => {
                // Closed before the answer: after it the device can be removed.
                kept.clear();
                send(connection, ProtocolByte::DONE, None)?;
                return Ok(true);
            }
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// Bytes of the protocol.
struct ProtocolByte;

impl ProtocolByte {
    const KEEP: u8 = b'k';
    const GIVE: u8 = b'g';
    const END: u8 = b'e';
    const DONE: u8 = b'd';
    const DESCRIPTOR: u8 = b'f';
}

fn send_all(connection: &UnixStream, descriptors: &[impl AsFd]) -> io::Result<()> {
    let count = u16::try_from(descriptors.len()).map_err(io::Error::other)?;
    for byte in count.to_le_bytes() {
        send(connection, byte, None)?;
    }
    let mut descriptors = descriptors.iter();
    descriptors.try_for_each(|one| send(connection, ProtocolByte::DESCRIPTOR, Some(one.as_fd())))
}

fn receive_all(connection: &UnixStream) -> io::Result<Vec<OwnedFd>> {
    let count = u16::from_le_bytes([receive(connection)?.0, receive(connection)?.0]);
    let one = |_| receive(connection)?.1.ok_or_else(|| io::ErrorKind::InvalidData.into());
    (0..count).map(one).collect()
}

fn send(connection: &UnixStream, byte: u8, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors: Vec<_> = descriptor.into_iter().collect();
    if !descriptors.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    }
    let flags = SendFlags::NOSIGNAL;
    let sent = sendmsg(connection, &[IoSlice::new(&[byte])], &mut ancillary, flags)?;
    if sent == 1 { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

fn receive(connection: &UnixStream) -> io::Result<(u8, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let message = recvmsg(connection, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, flags)?;
    if message.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut received = None;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(mut descriptors) = message {
            received = descriptors.next();
        }
    }
    Ok((byte[0], received))
}

/// Returns a path of the keeper's socket that is short enough for the address of a socket.
fn socket(directory: BorrowedFd<'_>) -> PathBuf {
    use std::os::fd::AsRawFd as _;
    PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd()))
}

fn remove_socket(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Name of the socket in the directory of an instance.
pub(super) const SOCKET: &str = "keeper";
/// Longest wait for a keeper, which answers at once.
const TIMEOUT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    fn run_keeper(directory: &Path) -> std::thread::JoinHandle<()> {
        let listener = UnixListener::bind(directory.join(SOCKET)).expect("a socket");
        std::thread::spawn(move || {
            let mut kept = Vec::new();
            for connection in listener.incoming() {
                if let Ok(true) = serve(&connection.expect("a connection"), &mut kept) {
                    break;
                }
            }
        })
    }

    #[test]
    fn descriptors_outlive_the_client_that_handed_them_over() {
        let directory = tempfile::tempdir().expect("a directory");
        assert!(Keeper::connect(directory.path()).is_err());
        let running = run_keeper(directory.path());
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let connect = || Keeper::connect(directory.path()).expect("a keeper");
        assert!(connect().give().expect("an answer").is_empty());
        connect().keep(&[theirs.as_fd()]).expect("kept");
        drop(theirs);
        // A client that breaks off changes nothing.
        let broken = connect();
        send(&broken.connection, ProtocolByte::KEEP, None).expect("sent");
        drop(broken);
        for _ in 0..2 {
            let given = connect().give().expect("an answer");
            let [only] = <[OwnedFd; 1]>::try_from(given).expect("one descriptor");
            UnixStream::from(only).write_all(b"x").expect("written");
            let mut byte = [0];
            (&ours).read_exact(&mut byte).expect("the other end is open");
        }
        connect().end().expect("an end");
        running.join().expect("the keeper ends");
        assert_eq!((&ours).read(&mut [0]).expect("the other end is closed"), 0);
    }
}
