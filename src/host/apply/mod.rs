//! Makes the steps on the host, keeps them there, and takes them back.

pub(crate) mod compare;
pub(crate) mod journal;
pub(crate) mod lifecycle;
