//! Routes of other programs in natbox's own tables.
//!
//! Such a route may have the place of one of natbox's routes, or precede one: it is more specific,
//! or has a lower metric. The tables are natbox's alone, so natbox removes it. In the tables of the
//! host natbox removes nothing, and reports a conflict.

use std::time::Instant;

use super::contest::Setting;
use super::managed::ManagedHost;
use super::report::HostReport;
use crate::host::model::snapshot::{FoundRoute, Snapshot};
use crate::host::model::step::{Route, Step};

impl ManagedHost {
    /// Removes the routes of other programs from natbox's tables, and reports them. Returns, for
    /// each table from which something was removed, whether the table is disputed.
    pub(super) async fn remove_intruders(
        &mut self,
        snapshot: &Snapshot,
        now: Instant,
        report: &mut HostReport,
    ) -> Vec<bool> {
        let own = self.own_routes();
        let mut tables: Vec<u32> = Vec::new();
        for table in self.intruders(snapshot, &own).map(|found| found.route.table) {
            if !tables.contains(&table) {
                tables.push(table);
            }
        }
        let mut disputes = Vec::new();
        for table in tables {
            let setting = Setting::Table(table);
            if !self.contest.allows(&setting, now) {
                let found = self.intruders(snapshot, &own).map(|found| &found.route);
                for route in found.filter(|route| route.table == table) {
                    let words = route.words();
                    let problem =
                        format!("route `{words}` of another program: the table is natbox's alone");
                    report.add_missing(&problem, self.dependencies().of_table(table));
                }
                continue;
            }
            match self.kernel.remove_routes(table, &own).await {
                Ok(removed) => {
                    let commands = removed.iter().map(|route| format!("ip route del {route}"));
                    report.restored.extend(commands);
                    disputes.push(self.contest.record(&setting, now));
                }
                Err(error) => {
                    let dependents = self.dependencies().of_table(table);
                    report.add_missing(&error.to_string(), dependents);
                }
            }
        }
        disputes
    }

    /// Iterates over the routes of other programs in natbox's tables.
    fn intruders<'s>(
        &self,
        snapshot: &'s Snapshot,
        own: &[Route],
    ) -> impl Iterator<Item = &'s FoundRoute> {
        let ids = self.ids;
        let in_own_table = move |found: &&FoundRoute| ids.owns_table(found.route.table);
        snapshot.routes.iter().filter(in_own_table).filter(|found| !found.is_one_of(own))
    }

    /// Lists natbox's routes: the wanted ones, and those that it has not removed yet.
    fn own_routes(&self) -> Vec<Route> {
        let steps = self.steps.iter().chain(self.done.iter().map(|entry| &entry.step));
        let route = |step: &Step| match step {
            Step::Route(route) => Some(route.clone()),
            Step::BringUpTun { .. }
            | Step::Address { .. }
            | Step::Sysctl { .. }
            | Step::Rule(_)
            | Step::ProxyNeighbour { .. }
            | Step::SetLocalRuleAside
            | Step::KeepMainRule => None,
        };
        steps.filter_map(route).collect()
    }
}
