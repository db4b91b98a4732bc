//! Values of the configuration that the translator or the name server uses as they are. The module
//! `config` gives them their words.

pub(crate) mod dns;
pub(crate) mod nat;
