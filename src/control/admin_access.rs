//! Who may use the admin socket: root and natbox's own user may do everything, members of
//! `admin.group` may read.
//!
//! The mode of the socket's file already keeps other users out. The checks here hold as well if the
//! mode was changed, or if a process hands its connection to another: the kernel names the user and
//! the groups that a process had when it connected.

use std::io;

use tokio::net::UnixStream;

use super::error::SocketError;
use crate::api::Access;
use crate::config::Admin;

/// The users that may use the admin socket.
#[derive(Debug)]
pub(super) struct AdminAccess {
    /// User of this process.
    own_user: u32,
    /// None: no group may use the socket.
    group: Option<Group>,
}

#[derive(Debug)]
struct Group {
    /// Name or number, as the configuration has it.
    name: String,
    id: u32,
}

/// The user at the other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    user: u32,
    /// The group of the process, then its supplementary groups.
    groups: Vec<u32>,
}

/// Reason why a user may not do something.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum AccessError {
    /// The user may only read.
    #[error(
        "user {user} may only read, as a member of admin.group `{group}`; run the command as root"
    )]
    ReadOnly {
        /// Number of the user.
        user: u32,
        /// Name of the group.
        group: String,
    },
    /// The user may do nothing.
    #[error("user {user} may not use the admin socket; run the command as root{alternative}")]
    Closed {
        /// Number of the user.
        user: u32,
        /// What else helps.
        alternative: String,
    },
}

impl AdminAccess {
    /// Finds the group of the configuration.
    ///
    /// # Errors
    /// [`SocketError::NoGroup`].
    pub(super) fn new(admin: &Admin) -> Result<Self, SocketError> {
        let group = admin.group.as_ref().map(|name| {
            let failed = |source| SocketError::NoGroup { group: name.clone(), source };
            Ok(Group { name: name.clone(), id: group_id(name).map_err(failed)? })
        });
        let own_user = rustix::process::geteuid().as_raw();
        Ok(Self { own_user, group: group.transpose()? })
    }

    /// Returns the group that may connect.
    pub(super) fn group(&self) -> Option<u32> {
        self.group.as_ref().map(|group| group.id)
    }

    /// Checks whether a user may do something.
    ///
    /// # Errors
    /// See [`AccessError`].
    pub(super) fn check(&self, peer: &Peer, wanted: Access) -> Result<(), AccessError> {
        let user = peer.user;
        if user == 0 || user == self.own_user {
            return Ok(());
        }
        let member_of = self.group.as_ref().filter(|group| peer.groups.contains(&group.id));
        match (member_of, wanted) {
            (Some(_), Access::Read) => Ok(()),
            (Some(group), Access::Change) => {
                Err(AccessError::ReadOnly { user, group: group.name.clone() })
            }
            (None, _) => {
                let alternative = match &self.group {
                    Some(group) => format!(", or add the user to the group `{}`", group.name),
                    None => ", or set admin.group to let a group read".to_owned(),
                };
                Err(AccessError::Closed { user, alternative })
            }
        }
    }
}

impl Peer {
    /// Returns the user that has opened a connection.
    ///
    /// # Errors
    /// The system's error.
    pub(super) fn of(connection: &UnixStream) -> io::Result<Self> {
        let credentials = connection.peer_cred()?;
        let mut groups = vec![credentials.gid()];
        groups.extend(crate::io::peer_groups(connection)?);
        Ok(Self { user: credentials.uid(), groups })
    }
}

/// Returns the number of a group.
///
/// Only `/etc/group` is read. A group of a directory service must be given by its number.
fn group_id(name: &str) -> io::Result<u32> {
    if let Ok(id) = name.parse() {
        return Ok(id);
    }
    let groups = std::fs::read_to_string("/etc/group")?;
    id_in(&groups, name).ok_or_else(|| io::Error::other("/etc/group has no such group"))
}

/// Finds a group in the lines of a file: `name:password:number:members`.
fn id_in(groups: &str, name: &str) -> Option<u32> {
    let mut rows = groups.lines().map(|line| line.split(':'));
    rows.find_map(|mut row| (row.next() == Some(name)).then(|| row.nth(1)?.parse().ok())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(user: u32, groups: &[u32]) -> Peer {
        Peer { user, groups: groups.to_vec() }
    }

    #[test]
    fn root_and_the_own_user_change_the_group_reads_and_others_do_nothing() {
        let group = Some(Group { name: "ops".into(), id: 7 });
        let access = AdminAccess { own_user: 90, group };
        for user in [0, 90] {
            assert_eq!(access.check(&peer(user, &[]), Access::Change), Ok(()));
        }
        let member = peer(1000, &[1000, 7]);
        assert_eq!(access.check(&member, Access::Read), Ok(()));
        let refused = access.check(&member, Access::Change).unwrap_err().to_string();
        assert!(refused.contains("user 1000 may only read") && refused.contains("`ops`"));
        for wanted in [Access::Read, Access::Change] {
            let refused = access.check(&peer(1000, &[1000]), wanted).unwrap_err().to_string();
            assert!(refused.contains("add the user to the group `ops`"), "{refused}");
        }
        let closed = AdminAccess { own_user: 90, group: None };
        let refused = closed.check(&member, Access::Read).unwrap_err().to_string();
        assert!(refused.contains("set admin.group"), "{refused}");
    }

    #[test]
    fn groups_are_found_by_name_and_by_number() {
        let file = "root:x:0:\nops-old:x:6:a\nops:x:7:a,b\nbroken\n";
        assert_eq!(
            [id_in(file, "ops"), id_in(file, "op"), id_in(file, "broken")],
            [Some(7), None, None]
        );
        assert_eq!((group_id("4711").unwrap(), group_id("root").unwrap()), (4711, 0));
        assert!(group_id("no such group").is_err());
    }

    #[tokio::test]
    async fn the_kernel_names_the_user_and_the_groups_of_a_connection() {
        let (connection, _other) = UnixStream::pair().unwrap();
        let mut own: Vec<u32> =
            rustix::process::getgroups().unwrap().iter().map(|group| group.as_raw()).collect();
        own.insert(0, rustix::process::getegid().as_raw());
        let user = rustix::process::geteuid().as_raw();
        assert_eq!(Peer::of(&connection).unwrap(), peer(user, &own));
    }
}
