//! Checks keys that depend on one another, and makes the configuration of a file without
//! contradictions.
//!
//! A check reports nothing if one of its inputs could not be read, so no problem repeats another.

mod checker;
mod destinations;
mod dns;
mod forwards;
mod health;
mod inside;
mod outbound;
mod uplinks;

use std::path::Path;

use super::file::File;
use super::model::Config;
use super::problem::{Diagnostics, quoted};
use super::reader::cursor::Located;
use super::reader::tree::Node;
use super::schema::Unresolved;
use super::sections::{Admin, FileAdmin, Nat};
use super::types::names::parse_instance_name;
use crate::values::nat::EndpointDependence;

use checker::Checker;
use inside::InsideLegs;

/// Checks the file as a whole; None if the diagnostics hold the reason.
pub(super) fn check(
    file: File,
    root: &Node,
    file_name: &str,
    diagnostics: &Diagnostics,
) -> Option<Config> {
    let all_uplinks = file.uplinks.as_ref().and_then(|uplinks| uplinks.value.all());
    let checker = &Checker::new(root, diagnostics, all_uplinks.unwrap_or_default());
    let name = instance_name(&file.name, file_name, checker);
    let inside = &InsideLegs::of(&file.inside);
    inside::check(inside, &file.tun, checker);
    check_nat(&file.nat, checker);
    warn_of_keys_without_effect(&file, checker);
    let uplinks = uplinks::check(inside, checker);
    let forwards = forwards::check(readable(&file.forwards), inside, file.nat.ports, checker);
    let outbound = outbound::check(readable(&file.outbound), inside, checker);
    let no_nat = outbound::check_no_nat(readable(&file.no_nat), inside, checker);
    let dns = match &file.dns {
        Unresolved::Absent => Some(None),
        Unresolved::Unreadable => None,
        Unresolved::Given(dns) => dns::check(dns, &forwards, checker).map(Some),
    };
    all_uplinks?;
    Some(Config {
        admin: admin(file.admin, name.as_deref())?,
        name: name?,
        tun: file.tun,
        inside: inside.whole()?,
        uplinks: uplinks?,
        forwards,
        outbound: outbound?,
        no_nat: no_nat?,
        nat: file.nat,
        timeouts: file.timeouts,
        limits: file.limits,
        host: file.host,
        state: file.state,
        log: file.log,
        dns: dns?,
    })
}

/// Returns the items of an optional list that could be read.
fn readable<T>(list: &Unresolved<super::types::Items<T>>) -> &[Located<T>] {
    list.given().map_or(&[], |items| &items.value.readable)
}

/// Returns the name of the instance. Without the key, the name of the file serves.
fn instance_name(
    name: &Unresolved<String>,
    file_name: &str,
    checker: &Checker<'_>,
) -> Option<String> {
    match name {
        Unresolved::Unreadable => return None,
        Unresolved::Given(name) => return Some(name.value.clone()),
        Unresolved::Absent => {}
    }
    let stem = Path::new(file_name).file_stem().unwrap_or_default().to_string_lossy();
    let name = parse_instance_name(&stem);
    if let Err(error) = &name {
        let found =
            format!("no such key, and the file's name {} is no name of an instance", quoted(&stem));
        checker.diagnostics.report(
            &checker.location_of("name"),
            found,
            &error.wanted,
            "add `name: NAME`",
        );
    }
    name.ok()
}

/// Returns the admin interfaces; None if the default socket would be named after a box without a
/// name.
fn admin(admin: FileAdmin, name: Option<&str>) -> Option<Admin> {
    let socket = match admin.socket {
        Unresolved::Absent => Admin::default_socket(name?),
        Unresolved::Unreadable => return None,
        Unresolved::Given(socket) => socket.value,
    };
    Some(Admin { socket, group: admin.group.into_option()?, http: admin.http.into_option()? })
}

/// Reports overlapping ports if the remote endpoint does not distinguish the mappings of a port.
fn check_nat(nat: &Nat, checker: &Checker<'_>) {
    if nat.port_overlapping && nat.mapping == EndpointDependence::EndpointIndependent {
        let wanted = "false with endpoint-independent mapping";
        let advice = "set `mapping: address-and-port-dependent` as well, or leave this key out";
        checker.diagnostics.report(
            &checker.location_of("nat.port_overlapping"),
            "`true`",
            wanted,
            advice,
        );
    }
}

/// Warns of values that this version accepts and does not act on.
fn warn_of_keys_without_effect(file: &File, checker: &Checker<'_>) {
    let wanted = "no value yet";
    if let Some(http) = file.admin.http.given() {
        let advice = "this version does not act on it: no listener starts";
        checker.diagnostics.warn(&http.location, quoted(&http.value.to_string()), wanted, advice);
    }
}
