//! The two directions of a session.

/// Which of a session's two tuples a packet matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// That of the packet that opened the session.
    Original,
    /// The other.
    Reply,
}

impl Direction {
    /// 0 or 1.
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
