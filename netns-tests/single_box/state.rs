//! The state of a host, for a comparison before and after.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use natbox::lab::Namespace;

use super::SingleBox;

/// Rules, routes, proxy entries, links with addresses, all IPv4 settings, and natbox's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostState {
    /// The parts, by command or path.
    parts: BTreeMap<String, String>,
}

impl HostState {
    pub(super) fn of(testbed: &SingleBox) -> HostState {
        HostState::of_box(&testbed.natbox, testbed.lab.directory())
    }

    /// Returns the state of a host. `directory`: that of the admin sockets.
    pub(crate) fn of_box(host: &Namespace, directory: &Path) -> HostState {
        let mut parts = BTreeMap::new();
        let questions: [&[&str]; 4] = [
            &["-4", "rule"],
            &["-4", "route", "show", "table", "all"],
            &["-4", "neigh", "show", "proxy"],
            &["-4", "-brief", "address"],
        ];
        for question in questions {
            parts.insert(format!("ip {}", question.join(" ")), host.ip_output(question).unwrap());
        }
        host.enter(|| read_all(Path::new("/proc/sys/net/ipv4"), &mut parts)).unwrap();
        let inode = fs::metadata(format!("/run/netns/{}", host.name())).unwrap().ino();
        let of_this_namespace =
            |name: &String| name.starts_with(&format!("host-{inode}-")) && !name.is_empty();
        parts.insert(
            "journals".into(),
            names(Path::new("/run/natbox")).filter(of_this_namespace).collect(),
        );
        let sockets = names(directory).filter(|name| name.contains(".sock"));
        parts.insert("sockets".into(), sockets.collect::<Vec<_>>().join(" "));
        HostState { parts }
    }

    /// Returns the state without the parts that name an interface.
    pub(crate) fn without(mut self, interface: &str) -> HostState {
        let in_path = format!("/{interface}/");
        self.parts.retain(|name, _| !name.contains(&in_path));
        for text in self.parts.values_mut() {
            *text = text
                .lines()
                .filter(|line| !line.contains(interface))
                .collect::<Vec<_>>()
                .join("\n");
        }
        self
    }

    /// Returns the state without the admin sockets.
    pub(crate) fn without_sockets(mut self) -> HostState {
        self.parts.remove("sockets");
        self
    }

    /// Returns the output of `ip -4 rule`.
    pub(crate) fn rules(&self) -> &str {
        &self.parts["ip -4 rule"]
    }

    /// Returns true when no sysctl differs.
    pub(crate) fn same_sysctls(&self, now: &HostState) -> bool {
        let sysctls = |state: &HostState| {
            let parts = state.parts.iter().filter(|(name, _)| name.starts_with("/proc/"));
            parts.map(|(name, value)| (name.clone(), value.clone())).collect::<Vec<_>>()
        };
        sysctls(self) == sysctls(now)
    }

    /// Fails with the parts that differ.
    #[track_caller]
    pub(crate) fn assert_same(&self, now: &HostState, when: &str) {
        let names = self
            .parts
            .keys()
            .chain(now.parts.keys().filter(|name| !self.parts.contains_key(*name)));
        let differences: Vec<String> = names
            .filter(|name| self.parts.get(*name) != now.parts.get(*name))
            .map(|name| {
                format!(
                    "{name}\nbefore: {:?}\nnow:    {:?}",
                    self.parts.get(name),
                    now.parts.get(name)
                )
            })
            .collect();
        assert!(
            differences.is_empty(),
            "{when}, the host is not as before:\n{}",
            differences.join("\n")
        );
    }
}

fn names(directory: &Path) -> impl Iterator<Item = String> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
}

fn read_all(directory: &Path, parts: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_all(&path, parts);
        } else if let Ok(text) = fs::read_to_string(&path) {
            // The other files (route/flush) can only be written.
            parts.insert(path.to_string_lossy().into_owned(), text);
        }
    }
}
