//! Where an instance keeps small files that must outlive the process.

use std::path::{Path, PathBuf};

use crate::config::Config;

/// Returns the path of an instance's file: in the directory that a service manager keeps for
/// natbox's state, or beside the admin socket, where the file lasts until the host reboots.
pub(super) fn state_file(config: &Config, suffix: &str) -> PathBuf {
    in_directory(std::env::var_os("STATE_DIRECTORY").as_deref(), config, suffix)
}

fn in_directory(state: Option<&std::ffi::OsStr>, config: &Config, suffix: &str) -> PathBuf {
    let beside = || config.admin.socket.parent().map(Path::to_path_buf).unwrap_or_default();
    let state = state.filter(|directory| !directory.is_empty());
    state.map_or_else(beside, PathBuf::from).join(format!("{}.{suffix}", config.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn files_lie_in_the_state_directory_or_beside_the_socket() {
        let text = "name: a\ninside: { interface: lan0, prefixes: [10.0.0.0/24] }\n\
                    uplinks: [{ interface: wan0, addresses: [203.0.113.10] }]\n\
                    admin: { socket: /run/x/a.sock }\n";
        let config = config::parse("f.yaml", text).unwrap().config;
        let path = |state: Option<&str>| in_directory(state.map(AsRef::as_ref), &config, "reload");
        assert_eq!(path(Some("/var/lib/natbox")), Path::new("/var/lib/natbox/a.reload"));
        for none in [None, Some("")] {
            assert_eq!(path(none), Path::new("/run/x/a.reload"));
        }
    }
}
