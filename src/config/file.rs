//! The whole file: its keys, and the effective configuration written back.

use crate::config::reader::cursor::{Located, SectionKeys};
use crate::config::schema::{Required, Section, Unresolved, ValueTypeExt as _, mapping, section};
use crate::config::types::{Items, list, names, one_or_more, some};

use super::model::Config;
use super::schema::SectionInfo;
use super::sections::{
    FileAdmin, FileDns, FileForward, FileInsideLeg, FileNoNatRule, FileOutboundRule, FileUplink,
    Host, Inside, Limits, Log, Nat, Persistence, Timeouts, Tun, Uplink,
};

section! {
    /// The configuration of one box.
    #[derive(Debug)]
    pub(super) struct File {
        /// Name of the box.
        pub name: Unresolved<String> = names::instance_name()
            .optional("the name of the file without its extension")
            .needs_restart()
            .example("reference"),
        /// The TUN device that natbox creates, and the threads that serve it.
        pub tun: Tun = mapping::<Tun>().with_defaults().needs_restart(),
        /// The private network behind the box: one inside leg, or a list of several.
        pub inside: Required<Items<FileInsideLeg>> = one_or_more(mapping::<FileInsideLeg>, Inside::MAX_LEGS, "inside legs").required(
            "the private network: its interface and prefixes",
            "add `inside: { interface: lan0, prefixes: [10.0.0.0/24] }` with your own values",
        ),
        /// Uplinks to the outside, at least one.
        pub uplinks: Required<Items<FileUplink>> = some(mapping::<FileUplink>(), Uplink::MAX, "uplinks").required(
            "at least one uplink: its interface and addresses",
            "add `uplinks:` and under it `- { interface: wan0, addresses: [203.0.113.10] }` with your own values",
        ),
        /// Published services. No two publish the same protocol, address and port, unless one of
        /// them is narrower. The narrower one then gets the packets.
        pub forwards: Unresolved<Items<FileForward>> = list(mapping::<FileForward>(), MAX_FORWARDS, "forwards")
            .optional("none"),
        /// Rules for sessions from the private network to the outside.
        pub outbound: Unresolved<Items<FileOutboundRule>> = list(mapping::<FileOutboundRule>(), MAX_RULES, "outbound rules")
            .optional("no inside host may go out"),
        /// Destinations that inside hosts reach without translation.
        pub no_nat: Unresolved<Items<FileNoNatRule>> = list(mapping::<FileNoNatRule>(), MAX_NO_NAT, "rules without translation")
            .optional("none"),
        /// Behaviour of the translator.
        pub nat: Nat = mapping::<Nat>().with_defaults(),
        /// Idle timeouts.
        pub timeouts: Timeouts = mapping::<Timeouts>().with_defaults(),
        /// Bounds of memory, and of what one host may use.
        pub limits: Limits = mapping::<Limits>().with_defaults(),
        /// The host that natbox runs on.
        pub host: Host = mapping::<Host>().with_defaults(),
        /// Admin interfaces.
        pub admin: FileAdmin = mapping::<FileAdmin>().with_defaults(),
        /// Session state.
        pub state: Persistence = mapping::<Persistence>().with_defaults(),
        /// Log output.
        pub log: Log = mapping::<Log>().with_defaults(),
        /// DNS that follows the uplinks.
        pub dns: Unresolved<FileDns> = mapping::<FileDns>().optional("none"),
    }
}

impl From<&Config> for File {
    fn from(config: &Config) -> Self {
        let uplinks = &config.uplinks;
        let forwards = config.forwards.iter().map(|forward| FileForward::of(forward, uplinks));
        let outbound = config.outbound.iter().map(|rule| FileOutboundRule::of(rule, uplinks));
        let no_nat = config.no_nat.iter().map(FileNoNatRule::from);
        let dns = config.dns.as_ref().map(|dns| FileDns::of(dns, uplinks));
        Self {
            name: Unresolved::from_option(Some(config.name.clone())),
            tun: config.tun.clone(),
            inside: Some(Located::without_location(Items::of(
                config.inside.legs.iter().map(FileInsideLeg::from),
            ))),
            uplinks: Some(Located::without_location(Items::of(
                uplinks.iter().map(FileUplink::from),
            ))),
            forwards: Unresolved::from_option(Some(Items::of(forwards))),
            outbound: Unresolved::from_option(Some(Items::of(outbound))),
            no_nat: Unresolved::from_option(Some(Items::of(no_nat))),
            nat: config.nat.clone(),
            timeouts: config.timeouts,
            limits: config.limits,
            host: config.host,
            admin: FileAdmin::from(&config.admin),
            state: config.state.clone(),
            log: config.log,
            dns: Unresolved::from_option(dns),
        }
    }
}

/// Lists every mapping of the file with its keys.
pub(super) fn section_keys() -> Vec<SectionKeys> {
    let mut sections = Vec::new();
    collect("", &File::describe(), &mut sections);
    sections
}

fn collect(path: &str, section: &SectionInfo, sections: &mut Vec<SectionKeys>) {
    let keys = section.keys.iter().map(|key| key.name).collect();
    sections.push(SectionKeys { path: path.to_owned(), keys });
    for key in &section.keys {
        let Some(below) = key.value.section() else { continue };
        let separator = if path.is_empty() { "" } else { "." };
        let items = if key.value.is_list() { "[]" } else { "" };
        collect(&format!("{path}{separator}{}{items}", key.name), below, sections);
    }
}

/// Most forwards. Bounds the time of the checks.
const MAX_FORWARDS: usize = 4096;
/// Most outbound rules. Bounds the time of the checks.
const MAX_RULES: usize = 1024;
/// Most rules without translation. Each packet without a session is compared with each, and each is
/// a rule of the kernel.
const MAX_NO_NAT: usize = 64;
