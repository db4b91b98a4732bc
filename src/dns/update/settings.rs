//! Where and how natbox sends DNS updates.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use hickory_proto::rr::Name;

use crate::values::dns::{Algorithm, Replace};

/// The server to update, and how.
#[derive(Clone, Debug)]
pub(crate) struct Update {
    /// Address of the server.
    pub server: SocketAddr,
    /// Whether uplinks lead to the server. False for a server on the private network, to which the
    /// host has a route.
    pub over_uplinks: bool,
    /// Zone on the server that holds the published names.
    pub zone: Name,
    /// Which records an update replaces.
    pub replace: Replace,
    /// File of the announced records for [`Replace::Own`]; None: natbox forgets them when it stops.
    pub announced: Option<PathBuf>,
    /// Key that natbox and the server share.
    pub key: TsigKey,
}

/// A key of TSIG.
#[derive(Clone)]
pub(crate) struct TsigKey {
    /// Name of the key.
    pub name: Name,
    /// Algorithm of the key.
    pub algorithm: Algorithm,
    /// Secret, see [`read_secret`].
    pub secret: Vec<u8>,
}

impl fmt::Debug for TsigKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TsigKey").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Why a secret cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretError {
    /// The file cannot be read.
    #[error("{path}: {source}; the file must be readable for natbox's user")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file does not hold base64.
    #[error(
        "{path}: found no base64 ({reason}), wanted the secret alone, as tsig-keygen prints it \
         after `secret`"
    )]
    NotBase64 {
        /// The file.
        path: PathBuf,
        /// What is wrong with its content.
        reason: String,
    },
}

/// Reads a secret from a file that holds the secret in base64.
///
/// # Errors
/// See [`SecretError`].
pub(crate) fn read_secret(path: &Path) -> Result<Vec<u8>, SecretError> {
    let not_base64 = |reason: String| SecretError::NotBase64 { path: path.to_owned(), reason };
    let text = std::fs::read_to_string(path)
        .map_err(|source| SecretError::File { path: path.to_owned(), source })?;
    let secret =
        BASE64.decode(text.trim().as_bytes()).map_err(|error| not_base64(error.to_string()))?;
    if secret.is_empty() { Err(not_base64("the file is empty".to_owned())) } else { Ok(secret) }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::name;
    use super::*;

    #[test]
    fn a_secret_file_holds_base64_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read_secret(&path).map_err(|error| error.to_string())
        };
        assert_eq!(read("c2VjcmV0\n"), Ok(b"secret".to_vec()));
        for text in ["", "\n", "c2VjcmV0!", "secret \"c2VjcmV0\";"] {
            let error = read(text).unwrap_err();
            assert!(error.contains("found no base64") && error.contains("/secret"), "{error}");
        }
        assert!(
            read_secret(&directory.path().join("none"))
                .unwrap_err()
                .to_string()
                .contains("No such file")
        );
    }

    #[test]
    fn a_key_does_not_print_its_secret() {
        let secret = b"hidden".to_vec();
        let key = TsigKey { name: name("k"), algorithm: Algorithm::HmacSha256, secret };
        let shown = format!("{key:?}");
        assert!(!shown.contains("104") && !shown.contains("hidden"), "{shown}");
    }
}
