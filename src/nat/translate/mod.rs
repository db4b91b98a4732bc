//! The paths of a packet, and the work on sessions that no packet causes.
//!
//! | file                               | content                                                 |
//! |------------------------------------|---------------------------------------------------------|
//! | `batch`                            | a batch: parse, hash, prefetch, translate               |
//! | `fast_path`                        | a packet of a session                                   |
//! | `decide`, `commit`, `slow_path`    | a packet without a session                              |
//! | `binding`, `held`, `uplink_choice` | external endpoint, mapping and uplink of a new session  |
//! | `related_uplink`                   | uplink of a session that belongs to an inbound session  |
//! | `fragment_path`                    | a fragment                                              |
//! | `icmp_error`                       | an ICMP error                                           |
//! | `effects`                          | what the paths above do to shared state                 |
//! | `rehearsal`, `explain`             | a packet that need not exist, without any effect        |
//! | `bypass`                           | a packet that is not translated                         |
//! | `scrub`                            | identification and recorded routes after a rewrite      |
//! | `icmp_reply`, `delayed_reject`     | ICMP errors that the translator sends                   |
//! | `sessions`, `snapshot`, `teardown` | listing, ending, export and import of sessions          |
//! | `adoption`, `import_files`         | the sessions of a process before this one               |
//! | `observed`                         | what is known of a packet that an operator looks at     |
//! | `policy_change`                    | a new policy while sessions continue                    |

pub(crate) mod adoption;
pub(crate) mod batch;
pub(crate) mod binding;
pub(crate) mod bypass;
pub(crate) mod commit;
pub(crate) mod decide;
pub(crate) mod delayed_reject;
pub(crate) mod effects;
pub(crate) mod explain;
pub(crate) mod fast_path;
pub(crate) mod fragment_path;
pub(crate) mod held;
pub(crate) mod icmp_error;
pub(crate) mod icmp_reply;
pub(crate) mod import_files;
pub(crate) mod observed;
pub(crate) mod policy_change;
pub(crate) mod rehearsal;
pub(crate) mod related_uplink;
pub(crate) mod scrub;
pub(crate) mod sessions;
pub(crate) mod slow_path;
pub(crate) mod snapshot;
pub(crate) mod teardown;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod uplink_choice;
