//! The list of steps: everything that natbox sets on the host, in order.
//!
//! The order matters in three places. The first step is a rule. Forwarding comes on only after the
//! rules that shut off the inside from the outside. Where an external address is assigned to the
//! host, the step that puts natbox before the host comes last.
//!
//! The rules, in the order in which the kernel tries them:
//!
//! | position | rule | purpose |
//! |---|---|---|
//! | 0 | local, except routes of the TUN's group | the host's own addresses except `G` |
//! | block | `iif lo from TUN address` → errors | natbox translates the kernel's ICMP errors |
//! | block | `iif lo from PROBE/27` → errors | natbox's own packets over an uplink |
//! | block, G | `iif wan0 to G` DHCP replies → local | a DHCP client's socket is bound to wan0 |
//! | block, G | `iif wan0 from PREFIX to G` → blackhole | a TUN hides the incoming interface |
//! | block, G | `iif wan0 to G` → outside | natbox gets the packet before the host does |
//! | block, G | `iif lan0 from OTHER to G` → blackhole | a TUN hides the inside leg as well |
//! | block, G | `iif lan0 to G` → inside | natbox gets the packet for hairpin |
//! | block, G | `to G` → local | all other packets to `G` are the host's |
//! | block | `oif wan0 from PREFIX` → bound | a bound socket sends nothing from the inside |
//! | block | `to PROBE/27` → local | replies to natbox's own packets |
//! | block | `iif wan0 from PREFIX` → blackhole | no outside host may use an inside source |
//! | block | `iif lan0 from OTHER` → blackhole | no inside host may use another leg's source |
//! | block | `iif wan0 from NO_NAT to PREFIX` → TUN | bypassed packets pass natbox |
//! | block | `iif wan0` → outside | only `G` and other networks are reachable |
//! | block | `iif lan0` → inside | natbox translates what leaves by an uplink |
//! | block | `iif TUN to PREFIX` → main | no rule of another program takes the packets |
//! | block | `iif TUN from G` → uplink | packets leave by the uplink of their address |
//! | block | `iif lo from OUTSIDE` → uplink | the same for the host's own packets |
//! | block | `iif lo from PREFIX` → host | natbox translates the host's inside packets |
//! | block | `iif lo from 0.0.0.0` UDP → service | the same for sockets without an address |
//! | block | `iif lo from 0.0.0.0` → unnumbered | the same where `wan0` has no address |
//! | 32764 | `iif lo from 0.0.0.0` → main, no default | known networks keep their routes |
//! | 32765 | `iif lo from 0.0.0.0` → follow | the host's own packets pass natbox |
//! | 32766 | main | the kernel's rule; kept, never removed |
//!
//! The rules marked `G` exist only where `G` is assigned to the host. The rule
//! `iif lo from OUTSIDE` exists only with several uplinks, and the last two rules `from 0.0.0.0`
//! only with `host.default_route: follow`. [`own_traffic`] explains the rules before them. The
//! rules with `OTHER` exist only with several inside legs: `OTHER` is a prefix of another leg.
//!
//! Where `G` is assigned to the host, the kernel's local rule would deliver every packet to `G`
//! before natbox sees it. natbox does not move that rule, because another program may delete a rule
//! at any other priority, and the host would be unreachable. Instead the rule at priority 0 passes
//! over one route, `local G dev TUN`, which precedes the kernel's own route of `G`:
//!
//! | event                            | consequence                                               |
//! |----------------------------------|-----------------------------------------------------------|
//! | natbox dies                      | the route vanishes with the TUN; the first rule takes `G` |
//! | `ip rule flush`                  | priority 0 stays; natbox sets the others again            |
//! | networkd removes foreign rules   | rules of the local table count as the kernel's and stay   |
//! | a rule precedes natbox's block   | only `G` is concerned, until natbox has moved its block   |

mod arp;
mod host_route;
mod interfaces;
mod own_traffic;
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
    steps.extend(planner.own_tables().into_iter().map(Step::Route));
    steps.extend(planner.main_table().into_iter().map(Step::Route));
    steps.extend(planner.source_filters());
    steps.extend(planner.arp());
    steps.extend(planner.rules().into_iter().map(Step::Rule));
    steps.extend(planner.host_route());
    steps.extend(planner.icmp_sysctls());
    steps.extend(planner.forwarding());
    steps.extend(planner.proxies());
    steps.extend(planner.precede_host());
    if facts.has_main_rule {
        steps.push(Step::KeepMainRule);
    }
    steps
}
