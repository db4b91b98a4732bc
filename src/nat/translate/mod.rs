//! What becomes of each packet.

pub(crate) mod batch;
pub(crate) mod binding;
pub(crate) mod bypass;
pub(crate) mod commit;
pub(crate) mod decide;
pub(crate) mod delayed_reject;
pub(crate) mod fast_path;
pub(crate) mod fragment_path;
pub(crate) mod icmp_error;
pub(crate) mod icmp_reply;
pub(crate) mod policy_change;
pub(crate) mod scrub;
pub(crate) mod sessions;
pub(crate) mod slow_path;
pub(crate) mod snapshot;
pub(crate) mod teardown;
pub(crate) mod uplink_choice;
