//! The files that this thread, and those that it starts, may still open (Landlock).
//!
//! The rules name directories and not single files, because programs replace files: an editor the
//! configuration, a DHCP client `resolv.conf`. Descriptors that are open already are not concerned,
//! nor are sockets.
//!
//! A kernel without Landlock, or with an older version, enforces what it can. `natbox status` and
//! `natbox doctor` show that.

use std::io;
use std::path::PathBuf;

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, LandlockStatus, PathBeneath, PathFd, RestrictionStatus,
    Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, RulesetStatus, make_bitflags,
};

/// What a thread may do with a file, or with all files of a directory and below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::control) enum FileAccess {
    /// Read files and list directories.
    Read,
    /// Read and write files that exist.
    Write,
    /// Read, write, make, rename and remove files.
    Change,
    /// Use the device.
    Device,
}

/// Files, and the access to them.
#[derive(Clone, Debug, Default)]
pub(in crate::control) struct FileRules(Vec<(PathBuf, FileAccess)>);

/// Rules that hold. Keep them as long as the threads need the files: the kernel may forget a
/// directory of `/proc` that no descriptor names, and the next one of this name is another one.
#[derive(Debug)]
pub(super) struct EnforcedRules {
    /// Version of Landlock (ABI); None: the kernel has none.
    version: Option<u32>,
    _named: Vec<PathFd>,
}

impl FileRules {
    /// Adds files. `path`: a file, or a directory with all files below it. A path that does not
    /// exist when the rules are enforced has no effect.
    pub(in crate::control) fn allow(&mut self, path: impl Into<PathBuf>, access: FileAccess) {
        self.0.push((path.into(), access));
    }

    /// Returns the files of `other` that these rules do not allow.
    pub(in crate::control) fn missing(&self, other: &Self) -> Vec<PathBuf> {
        let allows = |path: &PathBuf, access: FileAccess| {
            let mut rules = self.0.iter().filter(|(allowed, _)| path.starts_with(allowed));
            rules.any(|(_, allowed)| allowed.rights().contains(access.rights()))
        };
        let missing = other.0.iter().filter(|(path, access)| !allows(path, *access));
        missing.map(|(path, _)| path.clone()).collect()
    }

    /// Enforces the rules.
    ///
    /// # Errors
    /// A sentence about the step that failed.
    pub(super) fn enforce(self) -> Result<EnforcedRules, String> {
        self.restrict().map_err(|error| format!("restricting the access to files: {error}"))
    }

    fn restrict(self) -> Result<EnforcedRules, RulesetError> {
        let named = self.0.iter().filter_map(|(path, access)| {
            let rights = access.rights();
            let rights = if path.is_dir() { rights } else { rights & AccessFs::from_file(VERSION) };
            Some((PathFd::new(path).ok()?, rights))
        });
        let named: Vec<_> = named.collect();
        let mut rules = Ruleset::default().handle_access(AccessFs::from_all(VERSION))?.create()?;
        for (path, rights) in &named {
            rules = rules.add_rule(PathBeneath::new(path, *rights))?;
        }
        let version = version(&rules.restrict_self()?);
        Ok(EnforcedRules { version, _named: named.into_iter().map(|(path, _)| path).collect() })
    }
}

impl EnforcedRules {
    /// Returns the version of Landlock whose rules the kernel enforces; None: any file can be
    /// opened.
    pub(super) fn version(&self) -> Option<u32> {
        // The kernel has no other way to show the rules. No rule names this directory.
        let refused = std::fs::read_dir("/").is_err_and(is_refused);
        self.version.filter(|_| refused)
    }
}

impl FileAccess {
    fn rights(self) -> BitFlags<AccessFs> {
        let read = make_bitflags!(AccessFs::{ReadFile | ReadDir});
        let write = make_bitflags!(AccessFs::{WriteFile | Truncate});
        let change = make_bitflags!(AccessFs::{MakeReg | MakeSock | RemoveFile});
        match self {
            Self::Read => read,
            Self::Write => read | write,
            Self::Change => read | write | change,
            Self::Device => read | write | AccessFs::IoctlDev,
        }
    }
}

fn is_refused(error: io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

fn version(status: &RestrictionStatus) -> Option<u32> {
    match (&status.ruleset, status.landlock) {
        (RulesetStatus::NotEnforced, _) => None,
        (_, LandlockStatus::Available { effective_abi, .. }) => {
            Some(effective_abi.min(VERSION) as u32)
        }
        (_, LandlockStatus::NotEnabled | LandlockStatus::NotImplemented) => None,
    }
}

/// The version whose rights natbox knows: Linux 6.12. Older kernels enforce fewer rights.
const VERSION: ABI = ABI::V6;
