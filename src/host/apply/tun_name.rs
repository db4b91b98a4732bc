//! The name of the TUN, which another program may change.
//!
//! natbox finds the TUN by its interface index. Rules, sysctls and the filter of private addresses
//! have the name, so natbox renames the TUN back.

use std::time::Instant;

use super::contest::Setting;
use super::managed::ManagedHost;
use super::report::{HostReport, TunName};
use crate::host::error::HostError;
use crate::host::model::step::Step;

impl ManagedHost {
    /// Renames the TUN back if another program has renamed it.
    ///
    /// # Errors
    /// When the interfaces cannot be listed.
    pub(super) async fn rename_tun_back(
        &mut self,
        now: Instant,
        report: &mut HostReport,
    ) -> Result<TunName, HostError> {
        let name = self.config.tun.name.clone();
        let Some(found) = self.kernel.wrong_tun_name().await? else { return Ok(TunName::Right) };
        let (command, setting) =
            (format!("ip link set {found} name {name}"), Setting::TunName(name));
        if !self.contest.allows(&setting, now) {
            report.add_missing(&command, self.dependencies().of_everything());
            return Ok(TunName::Wrong);
        }
        Ok(match self.kernel.rename_tun_back(&found).await {
            Ok(()) => {
                report.restored.push(command);
                TunName::RenamedBack { is_disputed: self.contest.record(&setting, now) }
            }
            Err(error) => {
                report.add_missing(&error.to_string(), self.dependencies().of_everything());
                TunName::Wrong
            }
        })
    }

    /// Returns true for a sysctl of the TUN. While another interface has the name of the TUN, the
    /// path of the sysctl leads to that interface.
    pub(super) fn is_sysctl_of_tun(&self, step: &Step) -> bool {
        matches!(step, Step::Sysctl { .. })
            && step.interface() == Some(self.config.tun.name.as_str())
    }
}
