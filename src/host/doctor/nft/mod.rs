//! Evaluates the rules of nftables for a packet.
//!
//! | file         | content                                                       |
//! |--------------|---------------------------------------------------------------|
//! | `packet`     | a packet, as far as rules can match it                        |
//! | `ruleset`    | chains and rules, as `nft -j list ruleset` prints them        |
//! | `conditions` | whether the conditions of a rule match                        |
//! | `rules`      | what one rule does                                            |
//! | `tracking`   | which expressions need connection tracking                    |
//! | `filters`    | what the chains of a hook do                                  |

mod conditions;
pub(crate) mod filters;
pub(crate) mod packet;
mod rules;
pub(crate) mod ruleset;
mod tracking;
