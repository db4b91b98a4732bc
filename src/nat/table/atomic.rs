//! The atomic integers that records and buckets are made of.
//!
//! In tests a store can be the last one of its thread: see the module `death`. Outside tests these
//! are the types of the standard library.

#[cfg(not(test))]
pub(crate) use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64};

#[cfg(test)]
pub(crate) use counted::{AtomicU8, AtomicU16, AtomicU32, AtomicU64};

/// Kills a thread, for the shared memory, between two stores.
#[cfg(test)]
pub(crate) mod death {
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

    thread_local! {
        /// Stores until death; negative: the thread does not die.
        static LEFT: Cell<i64> = const { Cell::new(-1) };
    }

    /// What a death unwinds with.
    struct Killed;

    /// Runs `work` and lets its first `stores` stores reach memory. True if all of them did; false
    /// if the thread died before.
    pub(crate) fn after(stores: i64, work: impl FnOnce()) -> bool {
        LEFT.set(stores);
        let result = catch_unwind(AssertUnwindSafe(work));
        let died = LEFT.replace(-1) == 0 && result.is_err();
        match result {
            Err(panic) if !panic.is::<Killed>() => resume_unwind(panic),
            Ok(()) | Err(_) => !died,
        }
    }

    /// Reports whether the next store reaches memory. The first one that does not unwinds the
    /// thread; those of the destructors that run meanwhile are lost silently.
    pub(super) fn may_store() -> bool {
        match LEFT.get() {
            0 if std::thread::panicking() => false,
            0 => resume_unwind(Box::new(Killed)),
            left => {
                LEFT.set(if left > 0 { left - 1 } else { left });
                true
            }
        }
    }
}

#[cfg(test)]
mod counted {
    use std::sync::atomic::Ordering;

    use super::death;

    macro_rules! counted {
        ($($name:ident: $integer:ty,)+) => {
            $(
                /// An atomic integer whose stores may be cut off.
                #[derive(Debug, Default)]
                #[repr(transparent)]
                pub(crate) struct $name(std::sync::atomic::$name);

                impl $name {
                    #[inline]
                    pub(crate) fn load(&self, order: Ordering) -> $integer {
                        self.0.load(order)
                    }

                    #[inline]
                    pub(crate) fn store(&self, value: $integer, order: Ordering) {
                        if death::may_store() {
                            self.0.store(value, order);
                        }
                    }
                }
            )+
        };
    }

    counted! {
        AtomicU8: u8,
        AtomicU16: u16,
        AtomicU32: u32,
        AtomicU64: u64,
    }
}
