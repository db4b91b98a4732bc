//! The directory of an instance: its lock, its header and its files.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};

use super::header::{StateHeader, Unusable, Wanted};
use crate::nat::{Seed, SessionFileSizes, SessionFiles};

/// The files of a running instance, locked against other processes.
#[derive(Debug)]
pub(crate) struct SessionState {
    directory: PathBuf,
    /// Locked as long as it is open.
    _lock: File,
    header: StateHeader,
    /// The files.
    pub(crate) files: SessionFiles,
    /// Seed of the translator that has the files.
    pub(crate) seed: Seed,
}

/// What the directory had for this process.
#[derive(Debug)]
pub(crate) enum Opened {
    /// No sessions. The text says why the sessions of a process before this one end; None: there
    /// was none.
    Empty(Option<String>),
    /// Sessions that continue.
    Inherited,
}

/// The sessions cannot be kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    /// Another process has the lock.
    #[error(
        "{path}: another natbox of this name is running and holds the sessions; stop it, or give \
         this one another `name`"
    )]
    InUse {
        /// The lock.
        path: PathBuf,
    },
    /// The file system has too little space.
    #[error(
        "{path}: no room for {bytes} bytes of session state; give its file system more space, \
         choose another `state.directory`, or lower `limits.sessions`"
    )]
    NoSpace {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// Another error of the system.
    #[error("{path}: session state cannot be kept there")]
    System {
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl SessionState {
    /// Opens the directory of an instance, takes its lock, and reserves the space of the files.
    ///
    /// # Errors
    /// See [`StateError`]. The sessions in the directory are untouched then.
    pub(crate) fn open(
        base: &Path,
        name: &str,
        wanted: &Wanted,
    ) -> Result<(Self, Opened), StateError> {
        let directory = base.join(name);
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| StateError::System { path, source }
        };
        let sizes =
            SessionFileSizes::of(wanted.sessions, wanted.accounting).map_err(failed(&directory))?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .map_err(failed(&directory))?;
        let lock = lock(&directory)?;
        let (header, opened) = match usable(&directory, wanted, sizes) {
            Ok(Some(header)) => (header, Opened::Inherited),
            Ok(None) => (StateHeader::new(wanted, rand::random()), Opened::Empty(None)),
            Err(reason) => {
                (StateHeader::new(wanted, rand::random()), Opened::Empty(Some(reason.to_string())))
            }
        };
        if matches!(opened, Opened::Empty(_)) {
            clear(&directory).map_err(failed(&directory))?;
        }
        let files = SessionFiles {
            records: reserve(&directory, "records", sizes.records)?,
            index: reserve(&directory, "index", sizes.index)?,
            accounts: reserve(&directory, "accounts", sizes.accounts)?,
        };
        let header = header.taken_over();
        header.write(&directory).map_err(failed(&directory))?;
        let seed = Seed::from(header.seed);
        Ok((Self { directory, _lock: lock, header, files, seed }, opened))
    }

    /// Notes that all sessions are adopted: the next process may take the files over.
    ///
    /// # Errors
    /// The header cannot be written.
    pub(crate) fn adopted(&mut self) -> io::Result<()> {
        self.header.attempts = 0;
        self.header.write(&self.directory)
    }
}

/// Removes the sessions of an instance that does not run. Returns false if there are none.
///
/// # Errors
/// A process has the lock, or the files cannot be removed.
pub(crate) fn remove(base: &Path, name: &str) -> Result<bool, StateError> {
    let directory = base.join(name);
    if !directory.exists() {
        return Ok(false);
    }
    let _lock = lock(&directory)?;
    fs::remove_dir_all(&directory)
        .map(|()| true)
        .map_err(|source| StateError::System { path: directory, source })
}

/// Takes the lock of a directory.
fn lock(directory: &Path) -> Result<File, StateError> {
    let path = directory.join("lock");
    let opened = open(&path);
    let file = opened.map_err(|source| StateError::System { path: path.clone(), source })?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StateError::InUse { path }),
        Err(errno) => Err(StateError::System { path, source: errno.into() }),
    }
}

/// Returns the header of files whose sessions can continue; None: the directory has no files.
fn usable(
    directory: &Path,
    wanted: &Wanted,
    sizes: SessionFileSizes,
) -> Result<Option<StateHeader>, Unusable> {
    let Some(header) = StateHeader::read(directory)? else { return Ok(None) };
    header.check(wanted)?;
    let lengths =
        [("records", sizes.records), ("index", sizes.index), ("accounts", sizes.accounts)];
    for (name, wanted) in lengths {
        if fs::metadata(directory.join(name))?.len() != wanted {
            return Err(Unusable::Length(name));
        }
    }
    Ok(Some(header))
}

/// Removes everything of a directory but the lock.
fn clear(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name() != "lock" {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Opens a file and reserves its space: a page that is missing later would end the process.
fn reserve(directory: &Path, name: &str, bytes: u64) -> Result<File, StateError> {
    let path = directory.join(name);
    let failed = |source| StateError::System { path: path.clone(), source };
    let file = open(&path).map_err(failed)?;
    if bytes == 0 {
        return Ok(file);
    }
    match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::NOSPC) => Err(StateError::NoSpace { path: path.clone(), bytes }),
        Err(errno) => Err(failed(errno.into())),
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(sessions: u32) -> Wanted {
        let uplinks = vec!["isp1".to_owned(), "isp2".to_owned()];
        Wanted {
            boot: "boot".to_owned(),
            sessions,
            accounting: false,
            uplinks,
            meaning: "eim".to_owned(),
        }
    }

    fn reason(opened: Opened) -> String {
        match opened {
            Opened::Inherited => "inherited".to_owned(),
            Opened::Empty(reason) => reason.unwrap_or_default(),
        }
    }

    #[test]
    fn files_are_inherited_by_a_process_with_the_same_wants() {
        let base = tempfile::tempdir().expect("a directory");
        let open = |wanted: &Wanted| SessionState::open(base.path(), "box", wanted);
        let (first, opened) = open(&wanted(1000)).expect("state");
        assert_eq!(reason(opened), "");
        let seed = first.seed;
        let error = open(&wanted(1000)).expect_err("locked");
        assert!(matches!(error, StateError::InUse { .. }), "{error}");
        drop(first);
        let (mut second, opened) = open(&wanted(1000)).expect("state");
        assert_eq!(reason(opened), "inherited");
        assert!(second.seed == seed);
        second.adopted().expect("a header");
        drop(second);
        let (_, opened) = open(&wanted(2000)).expect("state");
        assert_eq!(reason(opened), "the configuration has another `limits.sessions`");
    }

    #[test]
    fn processes_that_die_during_the_adoption_lead_to_empty_files() {
        let base = tempfile::tempdir().expect("a directory");
        let open = || SessionState::open(base.path(), "box", &wanted(10)).expect("state").1;
        assert_eq!(reason(open()), "");
        for _ in 1..10 {
            assert_eq!(reason(open()), "inherited");
        }
        let sentence = "10 processes in a row died while they took the sessions over";
        assert_eq!(reason(open()), sentence);
    }

    #[test]
    fn damage_leads_to_empty_files_and_a_sentence() {
        let base = tempfile::tempdir().expect("a directory");
        let open = || SessionState::open(base.path(), "box", &wanted(10)).expect("state").1;
        for (file, content) in
            [("header.json", "{"), ("records", "short"), ("header.json", "{\"magic\": 1}")]
        {
            open();
            fs::write(base.path().join("box").join(file), content).expect("a file");
            let sentence = reason(open());
            assert!(sentence.contains("damaged") || sentence.contains("length"), "{sentence}");
        }
        remove(base.path(), "box").expect("removed");
        assert_eq!(reason(open()), "");
    }
}
