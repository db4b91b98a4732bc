//! The directory of an instance: its lock, its header and its files.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};

use super::descriptors::{DescriptorStore, end_keeper};
use super::header::{HEADER, StateHeader, StateRequirements, Unusable};
use super::import::{self, FILES};
use super::keeper::SOCKET;
use super::tmpfs;
use crate::nat::{OldSessions, Seed, SessionFileSizes, SessionFiles};

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
    /// Sessions in old files, which were set aside, and the reason. Import them into the new files,
    /// then call [`SessionState::imported`].
    Old(OldSessions, String),
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
        "{path}: no space for {bytes} bytes of session state; give its file system more space, \
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
        required: &StateRequirements,
    ) -> Result<(Self, Opened), StateError> {
        let directory = base.join(name);
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| StateError::System { path, source }
        };
        let sizes = SessionFileSizes::of(required.sessions, required.accounting)
            .map_err(failed(&directory))?;
        make_base(base).map_err(failed(base))?;
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(&directory).map_err(failed(&directory))?;
        let lock = lock(&directory)?;
        let existing =
            existing_files(&directory, required, sizes).unwrap_or_else(ExistingFiles::Unusable);
        let (header, opened) = match existing {
            ExistingFiles::Nothing => (None, Opened::Empty(None)),
            ExistingFiles::Unusable(reason) => (None, Opened::Empty(Some(reason.to_string()))),
            ExistingFiles::Usable(header) => (Some(header), Opened::Inherited),
            ExistingFiles::Old(old, reason) => (None, Opened::Old(old, reason)),
        };
        match opened {
            Opened::Empty(_) => clear(&directory),
            Opened::Inherited => import::discard(&directory),
            Opened::Old(..) => Ok(()),
        }
        .map_err(failed(&directory))?;
        let reserved = reserve_all(&directory, sizes);
        let (files, opened) = match (reserved, opened) {
            (Err(StateError::NoSpace { .. }), Opened::Old(..)) => {
                import::discard(&directory).map_err(failed(&directory))?;
                let reason = "there is no space for the old and the new session files".to_owned();
                (reserve_all(&directory, sizes)?, Opened::Empty(Some(reason)))
            }
            (reserved, opened) => (reserved?, opened),
        };
        let header = header.unwrap_or_else(|| StateHeader::new(required, rand::random()));
        let header = header.taken_over();
        if !matches!(opened, Opened::Old(..)) {
            header.write(&directory, HEADER).map_err(failed(&directory))?;
        }
        let seed = Seed::from(header.seed);
        Ok((Self { directory, _lock: lock, header, files, seed }, opened))
    }

    /// Opens the store for the TUN's queues, and returns those in it. `inherited`: descriptors from
    /// the service manager. Call this with the privileges of the start.
    ///
    /// # Errors
    /// No process can be started that holds them.
    pub(crate) fn descriptors(
        &self,
        inherited: Vec<OwnedFd>,
    ) -> io::Result<(DescriptorStore, Vec<OwnedFd>)> {
        DescriptorStore::open(&self.directory, inherited)
    }

    /// Notes that the sessions of the old files are imported, and removes the old files.
    ///
    /// # Errors
    /// The header cannot be written, or the old files cannot be removed.
    pub(crate) fn imported(&mut self) -> Result<(), StateError> {
        let written = self.header.write(&self.directory, HEADER);
        let done = written.and_then(|()| import::discard(&self.directory));
        done.map_err(|source| StateError::System { path: self.directory.clone(), source })
    }

    /// Notes the names of the uplinks, in the order of their numbers. A number without an uplink
    /// has an empty name.
    ///
    /// # Errors
    /// The header cannot be written.
    pub(crate) fn set_uplinks(&mut self, uplinks: Vec<String>) -> io::Result<()> {
        match self.header.set_uplinks(uplinks) {
            true => self.header.write(&self.directory, HEADER),
            false => Ok(()),
        }
    }

    /// Notes that all sessions are adopted: the next process may take the files over.
    ///
    /// # Errors
    /// The header cannot be written.
    pub(crate) fn adopted(&mut self) -> io::Result<()> {
        self.header.attempts = 0;
        self.header.write(&self.directory, HEADER)
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
    end_keeper(&directory);
    fs::remove_dir_all(&directory)
        .map_err(|source| StateError::System { path: directory, source })?;
    tmpfs::unmount_from(base);
    Ok(true)
}

/// Makes the directory of all instances if it is missing, on a tmpfs of its own if natbox may mount
/// one.
fn make_base(base: &Path) -> io::Result<()> {
    if let Some(parent) = base.parent() {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(base) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(error),
    }
    if let Err(error) = tmpfs::mount_on(base) {
        tracing::info!(
            directory = %base.display(),
            "the session files lie on a file system that may have no huge pages: {error}"
        );
    }
    Ok(())
}

/// Takes the lock of a directory.
fn lock(directory: &Path) -> Result<File, StateError> {
    let path = directory.join(LOCK);
    let opened = open(&path);
    let file = opened.map_err(|source| StateError::System { path: path.clone(), source })?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StateError::InUse { path }),
        Err(errno) => Err(StateError::System { path, source: errno.into() }),
    }
}

/// What a directory has.
enum ExistingFiles {
    Nothing,
    Unusable(Unusable),
    Usable(StateHeader),
    /// Files that an import can read, set aside.
    Old(OldSessions, String),
}

/// Looks at the files of a directory, and sets them aside if they need an import.
fn existing_files(
    directory: &Path,
    required: &StateRequirements,
    sizes: SessionFileSizes,
) -> Result<ExistingFiles, Unusable> {
    let (header, reason) = match import::pending(directory)? {
        Some(header) => (header, Err(Unusable::CutOff)),
        None => match StateHeader::read(directory, HEADER)? {
            Some(header) => (header, Ok(())),
            None => return Ok(ExistingFiles::Nothing),
        },
    };
    let reason = match header.check(required).and(reason) {
        Err(reason) if reason.allows_import() => reason,
        Err(reason) => return Ok(ExistingFiles::Unusable(reason)),
        Ok(()) => {
            check_lengths(directory, str::to_owned, sizes)?;
            return Ok(ExistingFiles::Usable(header));
        }
    };
    let Some(format) = header.format() else { return Ok(ExistingFiles::Unusable(reason)) };
    let header = header.taken_over();
    import::set_aside(directory, &header)?;
    check_lengths(directory, import::aside, header.sizes(format))?;
    let open = |name| open(&directory.join(import::aside(name)));
    let [records, index, accounts] = FILES;
    let files =
        SessionFiles { records: open(records)?, index: open(index)?, accounts: open(accounts)? };
    Ok(ExistingFiles::Old(header.old_sessions(files, format, required), reason.to_string()))
}

/// Checks the lengths of files. `named`: the present name of a file.
fn check_lengths(
    directory: &Path,
    named: impl Fn(&'static str) -> String,
    sizes: SessionFileSizes,
) -> Result<(), Unusable> {
    for (name, required) in FILES.into_iter().zip([sizes.records, sizes.index, sizes.accounts]) {
        if fs::metadata(directory.join(named(name)))?.len() != required {
            return Err(Unusable::Length(name));
        }
    }
    Ok(())
}

/// Removes the files of a directory that have or describe sessions.
fn clear(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name() != LOCK && entry.file_name() != SOCKET {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Opens the files and reserves their space.
fn reserve_all(directory: &Path, sizes: SessionFileSizes) -> Result<SessionFiles, StateError> {
    let [records, index, accounts] = FILES;
    Ok(SessionFiles {
        records: reserve(directory, records, sizes.records)?,
        index: reserve(directory, index, sizes.index)?,
        accounts: reserve(directory, accounts, sizes.accounts)?,
    })
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

const LOCK: &str = "lock";

#[cfg(test)]
mod tests;
