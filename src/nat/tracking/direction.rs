//! The two directions of a session.

/// Which of a session's two tuples a packet matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Packets of the initiator.
    Original,
    /// Packets of the responder.
    Reply,
}

impl Direction {
    /// Index of the direction: 0 for original, 1 for reply.
    #[inline]
    pub fn number(self) -> usize {
        match self {
            Self::Original => 0,
            Self::Reply => 1,
        }
    }

    /// The opposite direction.
    #[inline]
    pub fn opposite(self) -> Self {
        match self {
            Self::Original => Self::Reply,
            Self::Reply => Self::Original,
        }
    }
}
