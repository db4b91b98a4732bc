//! The list of steps: everything that natbox sets on the host, in order.
//!
//! The order matters in three places. The first step is a rule, which identifies a network
//! namespace that natbox has changed (see the journal). Forwarding comes on only after the rules
//! that shut off the inside from the outside. Where an external address is assigned to the host,
//! the step that puts natbox before the host comes last.
//!
//! The rules, in the order in which the kernel tries them. The rules with `to G` before the local
//! rule exist only where `G` is assigned to the host; elsewhere the local rule stays first:
//!
//! | position     | rule                                    | purpose                                      |
//! |--------------|-----------------------------------------|----------------------------------------------|
//! | before local | `iif lo from TUN address` → errors      | natbox translates the kernel's ICMP errors   |
//! | before local | `iif lo from PROBE/27` → errors         | natbox's own packets over an uplink          |
//! | before local | `iif wan0 to G` DHCP replies → local    | a DHCP client's socket is bound to wan0      |
//! | before local | `iif wan0 from PREFIX to G` → blackhole | a TUN hides the incoming interface           |
//! | before local | `iif wan0 to G` → outside               | natbox gets the packet before the host does  |
//! | before local | `iif lan0 from OTHER to G` → blackhole  | a TUN hides the inside leg as well           |
//! | before local | `iif lan0 to G` → inside                | natbox gets the packet for hairpin           |
//! | local        |                                         | the host's own addresses                     |
//! | after local  | `iif wan0 from PREFIX` → blackhole      | no outside host may use an inside source     |
//! | after local  | `iif lan0 from OTHER` → blackhole       | no inside host may use another leg's source  |
//! | after local  | `iif wan0 from NO_NAT to PREFIX` → TUN  | bypassed packets pass natbox                 |
//! | after local  | `iif wan0` → outside                    | only `G` is reachable from outside           |
//! | after local  | `iif lan0` → inside                     | natbox translates all that leaves the inside |
//! | after local  | `iif TUN from G` → uplink               | packets leave by the uplink of their address |
//! | after local  | `iif lo from OUTSIDE` → uplink          | the same for the host's own packets          |
//! | before main  | `iif lo from 0.0.0.0` → main, no default | known networks keep their routes            |
//! | before main  | `iif lo from 0.0.0.0` → follow          | the host's own packets pass natbox           |
//!
//! The row `from OUTSIDE` exists only with several uplinks. The last two rows exist only with
//! `host.default_route: follow`.
//! The rows with `OTHER` exist only with several inside legs: `OTHER` is a prefix of another leg.

mod arp;
mod host_route;
mod interfaces;
mod planner;
mod rules;
mod tables;

use planner::StepPlanner;

use super::facts::HostFacts;
use super::routing_ids::RoutingIds;
use super::step::Step;
use crate::config::Config;

/// Lists every step, in order.
///
/// # Panics
/// Never for facts that were collected for this configuration.
pub(crate) fn steps(config: &Config, facts: &HostFacts, ids: &RoutingIds) -> Vec<Step> {
    let planner = StepPlanner { config, facts, ids, tun: &config.tun.name };
    let mut steps = vec![Step::Rule(planner.errors_rule())];
    steps.extend(planner.probe_rule().map(Step::Rule));
    steps.extend(planner.tun());
    steps.extend(planner.tables().into_iter().map(Step::Route));
    steps.extend(planner.main_table().into_iter().map(Step::Route));
    steps.extend(planner.source_filters());
    steps.extend(planner.arp());
    steps.extend(planner.rules().into_iter().map(Step::Rule));
    steps.extend(planner.host_route());
    steps.extend(planner.icmp_sysctls());
    steps.extend(planner.forwarding());
    steps.extend(planner.proxies());
    steps.extend(planner.precede_host());
    steps
}
