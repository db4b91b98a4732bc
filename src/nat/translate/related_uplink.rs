//! The uplink and address of a session from inside that is related to an inbound session; see
//! [`crate::nat::table::related`].

use crate::nat::shared::uplink_states::AdmitNew;
use crate::nat::table::related::RelatedPlace;
use crate::nat::translator::Translator;
use crate::packet::Tuple;
use crate::time::Tick;

impl Translator {
    /// Returns the uplink and external address of the inbound session to which a session from
    /// inside with this tuple is related. None: there is no such session, or its uplink does not
    /// admit new sessions while another one does.
    ///
    /// The rule that permits the session need not name the uplink: the remote host has come by this
    /// uplink, and expects the session from this address.
    #[inline]
    pub(crate) fn related_place(&self, tuple: Tuple, now: Tick) -> Option<RelatedPlace> {
        self.table.related(tuple, now, |place| {
            let external = self.external(place.address);
            external.is_some_and(|external| external.uplink == place.uplink)
                && (self.uplink_states.admission(place.uplink) == AdmitNew::All
                    || !self.has_other_open_uplink(place.uplink))
        })
    }

    /// Reports whether a session from inside with this tuple is related to an inbound session over
    /// an uplink.
    pub(crate) fn is_related_on(&self, tuple: Tuple, uplink: u8, now: Tick) -> bool {
        self.table.related(tuple, now, |place| place.uplink == uplink).is_some()
    }
}
