//! Other limits for mappings that live.

use std::sync::Arc;

use crate::nat::mapping::mappings::Mappings;
use crate::nat::mapping::settings::MappingSettings;
use crate::nat::policy::limits::Limits;

impl Mappings {
    /// Changes the settings that may change while mappings live. Call [`Self::set_addresses`]
    /// afterwards.
    pub(crate) fn set_limits(&self, limits: &Limits) {
        let settings = MappingSettings::of(limits);
        self.settings.store(Arc::new(settings));
        for allocator in self.allocators.load().values() {
            allocator.set_delay(settings.delayed_ports, settings.timeouts);
            allocator.set_range(settings.ports);
        }
    }

    /// Returns the settings that may change.
    pub(super) fn settings(&self) -> MappingSettings {
        **self.settings.load()
    }
}
